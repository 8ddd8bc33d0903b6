-- Homeservers that were never tried are told first: those that were tried before wait for them.
DROP INDEX onbind_due;
CREATE INDEX onbind_turn ON onbind (tries > 0, due_at);
