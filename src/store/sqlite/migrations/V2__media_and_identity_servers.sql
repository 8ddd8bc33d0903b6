-- Sessions that an identity server validates, and messages of more than one medium.

ALTER TABLE session ADD COLUMN server TEXT;          -- the identity server; NULL: we validate
ALTER TABLE session ADD COLUMN server_sid TEXT;      -- the session's name there
ALTER TABLE session ADD COLUMN server_pair BLOB;     -- MAC of that name and the client_secret
ALTER TABLE session ADD COLUMN access_token BLOB;    -- sealed; NULL: our own account there
CREATE INDEX session_server_pair ON session (server_pair) WHERE server_pair IS NOT NULL;

CREATE TABLE asking (
    scope BLOB PRIMARY KEY,              -- the count of attempts that an identity server is being asked for
    until INTEGER NOT NULL               -- after which whoever asked must have died
) STRICT, WITHOUT ROWID;

ALTER TABLE outbox ADD COLUMN medium TEXT NOT NULL DEFAULT 'email';
DROP INDEX outbox_due;
CREATE INDEX outbox_due ON outbox (medium, due_at) WHERE finished_at IS NULL;
