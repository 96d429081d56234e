-- Version 5: a deployment that begins with the machines that are ready does not wait for the others for ever, and says what it began without.

-- So many seconds after it was given to the service it begins with the machines that are ready; nothing: only when enough are ready.
ALTER TABLE deployments ADD COLUMN patience INTEGER CHECK (patience >= 0);
-- When that is, in seconds since 1970, once it was given to the service.
ALTER TABLE deployments ADD COLUMN begin_by INTEGER;
-- Its machines that had no place in the plan when it began: number, name and reason.
ALTER TABLE deployments ADD COLUMN left_out TEXT NOT NULL DEFAULT '[]' CHECK (json_valid (left_out));

PRAGMA user_version = 5;
