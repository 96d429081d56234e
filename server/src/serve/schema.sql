-- Version 1. Rules that must hold are constraints, so that no version of the program can break them.

CREATE TABLE machines (
    id         INTEGER PRIMARY KEY,
    name       TEXT NOT NULL,
    state      TEXT NOT NULL CHECK (state IN ('new', 'accepted')),
    address    TEXT NOT NULL,
    interface  TEXT NOT NULL,
    disks      TEXT NOT NULL CHECK (json_valid(disks)),
    first_seen INTEGER NOT NULL,
    last_seen  INTEGER NOT NULL
) STRICT;

CREATE TABLE cards (
    mac     TEXT PRIMARY KEY,
    machine INTEGER NOT NULL REFERENCES machines (id)
) STRICT;

CREATE TABLE deployments (
    id              TEXT PRIMARY KEY,
    image           TEXT NOT NULL,
    wishes          TEXT NOT NULL CHECK (json_valid(wishes)),
    state           TEXT NOT NULL CHECK (state IN ('active', 'over')),
    started         INTEGER NOT NULL DEFAULT 0 CHECK (started IN (0, 1)),
    stop            INTEGER NOT NULL DEFAULT 0 CHECK (stop IN (0, 1)),
    exit_code       INTEGER,
    report          TEXT CHECK (report IS NULL OR json_valid(report)),
    detail          TEXT NOT NULL DEFAULT '',
    created         INTEGER NOT NULL,
    ended           INTEGER,
    idempotency_key TEXT UNIQUE,
    CHECK ((state = 'over') = (ended IS NOT NULL))
) STRICT;

CREATE TRIGGER deployments_move_forward BEFORE UPDATE ON deployments
WHEN OLD.state = 'over' BEGIN SELECT RAISE (ABORT, 'a deployment that is over does not change'); END;

CREATE TABLE targets (
    deployment TEXT NOT NULL REFERENCES deployments (id),
    machine    INTEGER NOT NULL REFERENCES machines (id),
    active     INTEGER NOT NULL CHECK (active IN (0, 1)),
    PRIMARY KEY (deployment, machine)
) STRICT;

-- A machine is in at most one active deployment.
CREATE UNIQUE INDEX one_active_deployment ON targets (machine) WHERE active = 1;

CREATE TABLE events (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    at         INTEGER NOT NULL,
    kind       TEXT NOT NULL,
    deployment TEXT REFERENCES deployments (id),
    machine    INTEGER REFERENCES machines (id),
    text       TEXT NOT NULL
) STRICT;

CREATE TRIGGER events_are_not_changed BEFORE UPDATE ON events
BEGIN SELECT RAISE (ABORT, 'events are only added'); END;
CREATE TRIGGER events_are_not_removed BEFORE DELETE ON events
BEGIN SELECT RAISE (ABORT, 'events are only added'); END;

CREATE TABLE tokens (
    hash    TEXT PRIMARY KEY,
    role    TEXT NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    created INTEGER NOT NULL
) STRICT;

PRAGMA user_version = 1;
