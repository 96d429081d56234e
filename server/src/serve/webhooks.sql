-- Webhooks. Nothing else refers to them, so they have no version: what is missing is made when the database is opened.
-- `taken` only moves forward: nothing is told twice because of the database.

CREATE TABLE IF NOT EXISTS webhooks (
    id       INTEGER PRIMARY KEY,
    url      TEXT NOT NULL,
    kinds    TEXT NOT NULL CHECK (json_valid (kinds)),
    secret   TEXT NOT NULL,
    taken    INTEGER NOT NULL,
    failures INTEGER NOT NULL DEFAULT 0,
    next_try INTEGER NOT NULL DEFAULT 0,
    problem  TEXT NOT NULL DEFAULT '',
    created  INTEGER NOT NULL
) STRICT;

CREATE TRIGGER IF NOT EXISTS webhooks_move_forward BEFORE UPDATE OF taken ON webhooks
WHEN NEW.taken < OLD.taken BEGIN SELECT RAISE (ABORT, 'a webhook moves forward'); END;
