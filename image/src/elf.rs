//! Reads an ELF program's headers: its machine, and whether it can start in an empty root.

use object::Endianness;
use object::elf::{EM_AARCH64, EM_X86_64, FileHeader64, PT_INTERP};
use object::read::elf::{FileHeader, ProgramHeader};

/// Why a program can't be in an image of its own.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no ELF program, or an incomplete one.
    #[error("its ELF headers are invalid; it must be a complete 64-bit Linux program")]
    Headers(#[from] object::read::Error),
    /// It is for a machine that podbeat isn't built for.
    #[error("it is for ELF machine {0}, not for amd64 or arm64")]
    Machine(u16),
    /// It is linked dynamically.
    #[error(
        "it needs the interpreter {0}, which the image does not contain; build it with `just static`"
    )]
    Interpreter(String),
}

/// The machine of an image, by its OCI name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// x86-64.
    Amd64,
    /// AArch64.
    Arm64,
}

impl std::fmt::Display for Architecture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        })
    }
}

impl Architecture {
    /// The machine of a program.
    ///
    /// # Errors
    /// It is no ELF program, or for another machine.
    pub fn of(program: &[u8]) -> Result<Self, Error> {
        let header = FileHeader64::<Endianness>::parse(program)?;
        match header.e_machine(header.endian()?) {
            EM_X86_64 => Ok(Self::Amd64),
            EM_AARCH64 => Ok(Self::Arm64),
            other => Err(Error::Machine(other)),
        }
    }
}

/// Checks that the program can start in an empty root, and returns its machine.
///
/// # Errors
/// It needs an interpreter (the dynamic linker), is no ELF program, or for another machine.
pub fn check_static(program: &[u8]) -> Result<Architecture, Error> {
    let header = FileHeader64::<Endianness>::parse(program)?;
    let endian = header.endian()?;
    for segment in header.program_headers(endian, program)? {
        if segment.p_type(endian) == PT_INTERP {
            let name = segment.data(endian, program).unwrap_or_default();
            let name = String::from_utf8_lossy(name);
            return Err(Error::Interpreter(name.trim_end_matches('\0').to_owned()));
        }
    }
    Architecture::of(program)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The smallest 64-bit little-endian program: a header, and optionally one program header that
    /// names an interpreter.
    pub(crate) fn program(machine: u16, interpreter: Option<&str>) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        bytes.extend(2_u16.to_le_bytes()); // an executable
        bytes.extend(machine.to_le_bytes());
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(0_u64.to_le_bytes()); // entry
        bytes.extend(64_u64.to_le_bytes()); // program headers
        bytes.extend(0_u64.to_le_bytes()); // section headers
        bytes.extend(0_u32.to_le_bytes()); // flags
        for field in [64, 56, u16::from(interpreter.is_some()), 64, 0, 0] {
            bytes.extend(u16::to_le_bytes(field));
        }
        if let Some(name) = interpreter {
            let length = u64::try_from(name.len()).unwrap() + 1;
            bytes.extend(PT_INTERP.to_le_bytes());
            bytes.extend(4_u32.to_le_bytes()); // readable
            for field in [120, 0, 0, length, length, 1] {
                bytes.extend(u64::to_le_bytes(field));
            }
            bytes.extend(name.bytes().chain([0]));
        }
        bytes
    }

    #[test]
    fn the_machine_is_read() {
        assert_eq!(
            check_static(&program(62, None)).unwrap(),
            Architecture::Amd64
        );
        assert_eq!(
            check_static(&program(183, None)).unwrap(),
            Architecture::Arm64
        );
        assert!(matches!(
            check_static(&program(8, None)),
            Err(Error::Machine(8))
        ));
    }

    #[test]
    fn an_interpreter_is_refused_by_name() {
        let refused = check_static(&program(62, Some("/lib64/ld-linux-x86-64.so.2"))).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "it needs the interpreter /lib64/ld-linux-x86-64.so.2, which the image does not contain; build \
             it with `just static`"
        );
    }

    #[test]
    fn this_test_itself_is_dynamic() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(matches!(check_static(&own), Err(Error::Interpreter(_))));
    }

    #[test]
    fn other_files_than_programs_are_refused() {
        for bytes in [
            &b""[..],
            b"#!/bin/sh\n",
            &program(62, Some("/lib/ld.so"))[..100],
        ] {
            assert!(matches!(check_static(bytes), Err(Error::Headers(_))));
        }
    }
}
