//! What the real binary logs: each line held against the table of messages, and each message of the table brought about.

mod bounds;
mod form;
mod lives;
mod secrets;
mod table;
mod traces;
