-- Addresses of accounts, and password resets.

ALTER TABLE contact ADD COLUMN validated_at INTEGER;  -- NULL: added before it was kept, or by the operator

-- A message to another address than its session's: one of the account that a password was reset for.
ALTER TABLE outbox ADD COLUMN address TEXT;

CREATE INDEX session_reset ON session (user_id) WHERE purpose = 'password' AND taken_at IS NULL;

-- Sessions of user-interactive authentication.
CREATE TABLE uia (
    id         BLOB PRIMARY KEY,         -- MAC of the session's name and of what it is for
    sealed     BLOB,                     -- what its stages left
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX uia_expiry ON uia (expires_at);

-- Which identity server an address was bound through, and with what it can be unbound.
CREATE TABLE binding (
    user_id   TEXT NOT NULL,
    medium    TEXT NOT NULL,
    address   TEXT NOT NULL,
    server    TEXT NOT NULL,
    key_id    BLOB NOT NULL,
    sealed    BLOB NOT NULL,             -- session, client_secret and access token there
    bound_at  INTEGER NOT NULL,
    PRIMARY KEY (user_id, medium, address, server)
) STRICT, WITHOUT ROWID;
