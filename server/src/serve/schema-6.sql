-- Version 6: events are kept for a time; tokens that are limited to groups.

-- What has happened to a machine is its history and stays. What is younger than a day stays, whoever asks.
DROP TRIGGER events_are_not_removed;
CREATE TRIGGER events_are_kept BEFORE DELETE ON events
WHEN OLD.machine IS NOT NULL OR OLD.at > unixepoch () - 86400
BEGIN SELECT RAISE (ABORT, 'events of machines and of the last day are kept'); END;
CREATE INDEX events_without_machine ON events (at) WHERE machine IS NULL;

-- A token without rows here may use all groups. So a group that is listed here is not removed.
CREATE TABLE token_groups (
    token         TEXT NOT NULL REFERENCES tokens (hash) ON DELETE CASCADE,
    machine_group INTEGER NOT NULL REFERENCES groups (id) ON DELETE RESTRICT,
    PRIMARY KEY (token, machine_group)
) STRICT, WITHOUT ROWID;

PRAGMA user_version = 6;
