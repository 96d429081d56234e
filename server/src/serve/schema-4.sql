-- Version 4: when a deployment begins, and deployments in waves.

-- An instant in seconds since 1970, and the time zone in which somebody named it.
ALTER TABLE deployments ADD COLUMN start_at INTEGER;
ALTER TABLE deployments ADD COLUMN start_zone TEXT NOT NULL DEFAULT '';
-- A start that is missed by more than so many seconds does not happen.
ALTER TABLE deployments ADD COLUMN grace INTEGER NOT NULL DEFAULT 900 CHECK (grace >= 0);
-- Waves are deployments one after the other; the series is named by the first one.
ALTER TABLE deployments ADD COLUMN series TEXT REFERENCES deployments (id);
ALTER TABLE deployments ADD COLUMN wave INTEGER NOT NULL DEFAULT 1 CHECK (wave >= 1);
ALTER TABLE deployments ADD COLUMN waves INTEGER NOT NULL DEFAULT 1 CHECK (waves >= 1);
ALTER TABLE deployments ADD COLUMN max_failed INTEGER NOT NULL DEFAULT 0 CHECK (max_failed >= 0);
-- Machines that did not get the image, once it is over.
ALTER TABLE deployments ADD COLUMN failed INTEGER;

CREATE UNIQUE INDEX one_of_each_wave ON deployments (series, wave) WHERE series IS NOT NULL;

PRAGMA user_version = 4;
