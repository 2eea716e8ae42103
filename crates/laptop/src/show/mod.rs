//! How text is shown to people at a terminal: tables as kubectl's, ages in its words.
//! Here lives what several commands show alike.
//! Never here: what is shown, I/O, clocks.

pub(crate) mod age;
pub(crate) mod table;
