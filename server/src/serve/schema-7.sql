-- Version 7: management boards of machines.

-- The password stands here as it is sent to the board: whoever reads this file can switch these machines.
CREATE TABLE boards (
    machine     INTEGER PRIMARY KEY REFERENCES machines (id),
    url         TEXT NOT NULL,
    user        TEXT NOT NULL,
    password    TEXT NOT NULL,
    fingerprint TEXT NOT NULL
) STRICT;

PRAGMA user_version = 7;
