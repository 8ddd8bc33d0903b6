-- Registrations between the homeserver's word and the addresses on the account: one row for each address.

CREATE TABLE registration (
    medium       TEXT NOT NULL,
    address      TEXT NOT NULL,
    id           BLOB NOT NULL,          -- MAC of the session's name: the rows of one id are one registration
    op_id        TEXT NOT NULL,          -- the operation that claimed this address's proof
    validated_at INTEGER NOT NULL,
    key_id       BLOB NOT NULL,          -- the server key that sealed was made with
    sealed       BLOB,                   -- with what the homeserver is asked; NULL: the account is known
    user_id      TEXT,                   -- the account; NULL: not known to be made
    due_at       INTEGER NOT NULL,       -- while leased: when the lease ends
    tries        INTEGER NOT NULL DEFAULT 0,
    begun_at     INTEGER NOT NULL,       -- when it was begun first
    PRIMARY KEY (medium, address)
) STRICT, WITHOUT ROWID;
CREATE INDEX registration_due ON registration (due_at);
CREATE INDEX registration_id ON registration (id);
