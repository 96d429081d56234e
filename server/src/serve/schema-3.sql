-- Version 3: groups, such as rooms; rules that accept machines by their address; deployments that need a second person.

CREATE TABLE groups (
    id        INTEGER PRIMARY KEY,
    name      TEXT NOT NULL UNIQUE COLLATE NOCASE CHECK (length (name) BETWEEN 1 AND 64),
    protected INTEGER NOT NULL DEFAULT 0 CHECK (protected IN (0, 1)),
    created   INTEGER NOT NULL
) STRICT;

CREATE TABLE members (
    machine_group INTEGER NOT NULL REFERENCES groups (id) ON DELETE CASCADE,
    machine       INTEGER NOT NULL REFERENCES machines (id),
    PRIMARY KEY (machine_group, machine)
) STRICT, WITHOUT ROWID;
CREATE INDEX groups_of_machine ON members (machine);

-- A rule without its group would accept machines into nothing: it goes with it.
CREATE TABLE rules (
    id            INTEGER PRIMARY KEY,
    subnet        TEXT NOT NULL UNIQUE,
    machine_group INTEGER REFERENCES groups (id) ON DELETE CASCADE,
    created       INTEGER NOT NULL
) STRICT;

-- A user without rows here may use all groups. So a group that is listed here is not removed: its last operator would get all others.
CREATE TABLE user_groups (
    user          INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    machine_group INTEGER NOT NULL REFERENCES groups (id) ON DELETE RESTRICT,
    PRIMARY KEY (user, machine_group)
) STRICT, WITHOUT ROWID;

ALTER TABLE machines ADD COLUMN note TEXT NOT NULL DEFAULT '' CHECK (length (note) <= 2000);

ALTER TABLE deployments ADD COLUMN asked_by TEXT NOT NULL DEFAULT '';
ALTER TABLE deployments ADD COLUMN needs_second INTEGER NOT NULL DEFAULT 0 CHECK (needs_second IN (0, 1));
ALTER TABLE deployments ADD COLUMN confirmed_by TEXT;
-- It was given to the service, and goes on by itself from there.
ALTER TABLE deployments ADD COLUMN released INTEGER NOT NULL DEFAULT 0 CHECK (released IN (0, 1));
UPDATE deployments SET released = 1 WHERE state = 'active';

CREATE TRIGGER confirmed_by_another BEFORE UPDATE OF confirmed_by ON deployments
WHEN NEW.confirmed_by = OLD.asked_by
BEGIN SELECT RAISE (ABORT, 'whoever asked for a deployment does not confirm it'); END;
CREATE TRIGGER released_when_confirmed BEFORE UPDATE OF released ON deployments
WHEN NEW.released = 1 AND NEW.needs_second = 1 AND NEW.confirmed_by IS NULL
BEGIN SELECT RAISE (ABORT, 'a deployment that nobody has confirmed does not begin'); END;

PRAGMA user_version = 3;
