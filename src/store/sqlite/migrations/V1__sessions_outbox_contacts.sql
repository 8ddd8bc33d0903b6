-- Times are milliseconds since 1970. "Nothing yet" is NULL, never 0.

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE session (
    sid             BLOB PRIMARY KEY,
    scope           BLOB NOT NULL,       -- MAC of purpose, address and client_secret: one count of attempts
    key_id          BLOB NOT NULL,       -- the server key that this row was made with
    secret_hash     BLOB NOT NULL,       -- MAC of the client_secret
    purpose         TEXT NOT NULL,
    medium          TEXT NOT NULL,
    address         TEXT NOT NULL,
    user_id         TEXT,
    genuine         INTEGER NOT NULL,    -- 0: a decoy, which can never be validated
    send_attempt    INTEGER NOT NULL,
    send_full_at    INTEGER NOT NULL,    -- bucket of the messages that this session may send
    next_link       BLOB,                -- sealed
    tries           INTEGER NOT NULL DEFAULT 0,
    created_at      INTEGER NOT NULL,
    link_expires_at INTEGER NOT NULL,
    code_expires_at INTEGER NOT NULL,
    expires_at      INTEGER NOT NULL,
    validated_at    INTEGER,
    claimed_by      TEXT,
    claim_digest    BLOB,
    claimed_until   INTEGER,
    taken_at        INTEGER,
    replaced_at     INTEGER
) STRICT;
CREATE UNIQUE INDEX session_scope ON session (scope) WHERE replaced_at IS NULL;
CREATE INDEX session_expiry ON session (expires_at);
CREATE UNIQUE INDEX session_claim ON session (claimed_by) WHERE claimed_by IS NOT NULL;

CREATE TABLE bucket (
    key     BLOB PRIMARY KEY,
    full_at INTEGER NOT NULL             -- when the bucket is full again
) STRICT, WITHOUT ROWID;

CREATE TABLE outbox (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    sid          BLOB NOT NULL,
    send_attempt INTEGER NOT NULL,
    kind         TEXT NOT NULL,
    details      TEXT NOT NULL,          -- JSON: network and account that the message names
    queued_at    INTEGER NOT NULL,
    useless_at   INTEGER NOT NULL,
    due_at       INTEGER NOT NULL,       -- while leased: when the lease ends
    holder       TEXT,                   -- the worker that has leased it
    deliveries   INTEGER NOT NULL DEFAULT 0,
    finished_at  INTEGER,
    state        TEXT NOT NULL DEFAULT 'queued',
    outcome      TEXT                    -- redacted
) STRICT;
CREATE INDEX outbox_due ON outbox (due_at) WHERE finished_at IS NULL;

CREATE TABLE contact (
    medium   TEXT NOT NULL,
    address  TEXT NOT NULL,
    user_id  TEXT NOT NULL,
    added_at INTEGER NOT NULL,
    PRIMARY KEY (medium, address)
) STRICT, WITHOUT ROWID;
CREATE INDEX contact_user ON contact (user_id, address);
