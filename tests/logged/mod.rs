//! What the real binary logs: the tests compare each line with the table of messages, and produce
//! each message of the table.

mod bounds;
mod form;
mod lives;
mod secrets;
mod table;
mod traces;
