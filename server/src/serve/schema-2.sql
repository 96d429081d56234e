-- Version 2: people. Who gave a command stands in its event.

CREATE TABLE users (
    id       INTEGER PRIMARY KEY,
    name     TEXT NOT NULL UNIQUE COLLATE NOCASE CHECK (length (name) BETWEEN 1 AND 64),
    role     TEXT NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    password TEXT NOT NULL,
    created  INTEGER NOT NULL
) STRICT;

-- Without an administrator nobody could make one.
CREATE TRIGGER last_admin_stays BEFORE DELETE ON users
WHEN OLD.role = 'admin' AND (SELECT count (*) FROM users WHERE role = 'admin') = 1
BEGIN SELECT RAISE (ABORT, 'the last administrator stays'); END;
CREATE TRIGGER last_admin_stays_one BEFORE UPDATE OF role ON users
WHEN OLD.role = 'admin' AND NEW.role != 'admin' AND (SELECT count (*) FROM users WHERE role = 'admin') = 1
BEGIN SELECT RAISE (ABORT, 'the last administrator stays'); END;

-- Links that work once: whoever opens one becomes a user, or gets a new password.
CREATE TABLE invitations (
    hash TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE COLLATE NOCASE,
    role TEXT NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    ends INTEGER NOT NULL
) STRICT;

CREATE TABLE sessions (
    hash TEXT PRIMARY KEY,
    user INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    ends INTEGER NOT NULL
) STRICT;

ALTER TABLE tokens ADD COLUMN ends INTEGER;
ALTER TABLE events ADD COLUMN who TEXT NOT NULL DEFAULT '';
-- A machine that was forgotten has no cards any more: if it calls, it is a new one.
ALTER TABLE machines ADD COLUMN forgotten INTEGER;

CREATE INDEX events_of_machine ON events (machine) WHERE machine IS NOT NULL;
CREATE INDEX events_of_deployment ON events (deployment) WHERE deployment IS NOT NULL;

PRAGMA user_version = 2;
