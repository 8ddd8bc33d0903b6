-- The identity server: accounts, associations, invitations.

CREATE TABLE identity_token (
    hash       BLOB PRIMARY KEY,         -- SHA-256 of the token
    user_id    TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX identity_token_user ON identity_token (user_id, created_at);
CREATE INDEX identity_token_expiry ON identity_token (expires_at);

CREATE TABLE accepted_policy (
    user_id     TEXT NOT NULL,
    policy      TEXT NOT NULL,
    version     TEXT NOT NULL,
    accepted_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, policy, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE association (
    id        INTEGER PRIMARY KEY AUTOINCREMENT, -- never another address's: a rotation names it
    medium    TEXT NOT NULL,
    address   TEXT NOT NULL,
    user_id   TEXT NOT NULL,
    at        INTEGER NOT NULL,
    proved_at INTEGER NOT NULL                   -- when the address was proved
) STRICT;
CREATE UNIQUE INDEX association_address ON association (medium, address);
-- Proofs of an address end with its association.
CREATE INDEX session_proof ON session (medium, address) WHERE purpose = 'identity' AND validated_at IS NOT NULL;

-- The pepper of the state 'current' is what lookups are made with; 'next' is that of a rotation under way, 'old' one whose
-- hashes are being forgotten.
CREATE TABLE pepper (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    value    TEXT NOT NULL,
    state    TEXT NOT NULL,
    since    INTEGER NOT NULL,
    rehashed BLOB NOT NULL DEFAULT x''   -- of a 'next' one: all hashes up to this one are written
) STRICT;
CREATE UNIQUE INDEX pepper_state ON pepper (state) WHERE state IN ('current', 'next');

-- The user stands here too, so that a lookup reads one page for an address, not two.
CREATE TABLE association_hash (
    pepper  INTEGER NOT NULL,
    hash    BLOB NOT NULL,
    user_id TEXT NOT NULL,
    PRIMARY KEY (pepper, hash)
) STRICT, WITHOUT ROWID;

-- Homeservers that must be told of an association.
CREATE TABLE onbind (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    association INTEGER NOT NULL,
    due_at      INTEGER NOT NULL,        -- while leased: when the lease ends
    leased      INTEGER NOT NULL DEFAULT 0,
    tries       INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX onbind_association ON onbind (association);
CREATE INDEX onbind_due ON onbind (due_at);

CREATE TABLE invite (
    id           BLOB PRIMARY KEY,       -- MAC of the token
    key_id       BLOB NOT NULL,          -- the server key that this row was made with
    token        BLOB NOT NULL,          -- sealed
    medium       TEXT NOT NULL,
    address      TEXT NOT NULL,
    room_id      TEXT NOT NULL,
    sender       TEXT NOT NULL,
    public_key   BLOB NOT NULL,          -- of its ephemeral key
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    used_at      INTEGER,
    withdrawn_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX invite_address ON invite (medium, address);
CREATE INDEX invite_public_key ON invite (public_key);
CREATE INDEX invite_created ON invite (created_at);
CREATE INDEX invite_expiry ON invite (expires_at);
CREATE INDEX invite_ended ON invite (coalesce(used_at, withdrawn_at));

-- A message about an invitation: its sid is the invitation's id, and what it says is sealed until it has gone.
ALTER TABLE outbox ADD COLUMN key_id BLOB;
ALTER TABLE outbox ADD COLUMN sealed BLOB;
CREATE INDEX outbox_sealed ON outbox (sid) WHERE sealed IS NOT NULL;
