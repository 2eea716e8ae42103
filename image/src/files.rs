//! The files of an image with their parent directories, in a fixed order: as a layer, or as a
//! directory.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// The mode of parent directories that no entry names.
const DIRECTORY_MODE: u32 = 0o755;

/// Why an image's files are invalid, or can't be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path is not valid in an image.
    #[error("invalid path in an image: {}; use an absolute path without . or ..", .0.display())]
    Path(PathBuf),
    /// Two entries have the same path, or an entry needs a directory where another has a file.
    #[error("two entries of the image conflict at {}", .0.display())]
    Clash(PathBuf),
    /// An operation on a file or directory of this host failed.
    #[error("{doing} {}", path.display())]
    Host {
        /// The action that failed.
        doing: &'static str,
        /// The path on this host.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The layer can't be written.
    #[error("packing {} into the image's layer", path.display())]
    Pack {
        /// The path in the image.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// One file, directory or link in an image, with its path from the root. Everything belongs to
/// root.
#[derive(Clone, Debug)]
pub struct Entry {
    path: PathBuf,
    node: Node,
}

#[derive(Clone, Debug)]
enum Node {
    Directory { mode: u32 },
    File { mode: u32, contents: Vec<u8> },
    Link { target: PathBuf },
}

impl Entry {
    /// A file with this content.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>, mode: u32, contents: impl Into<Vec<u8>>) -> Self {
        let contents = contents.into();
        Self {
            path: path.into(),
            node: Node::File { mode, contents },
        }
    }

    /// A file with the content of a file of this host.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn copy(path: impl Into<PathBuf>, mode: u32, from: &Path) -> Result<Self, Error> {
        let contents = std::fs::read(from).map_err(host("reading", from))?;
        Ok(Self::file(path, mode, contents))
    }

    /// A symbolic link.
    #[must_use]
    pub fn link(path: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        let target = target.into();
        Self {
            path: path.into(),
            node: Node::Link { target },
        }
    }

    /// The content, if it is a file.
    #[must_use]
    pub fn contents(&self) -> Option<&[u8]> {
        match &self.node {
            Node::File { contents, .. } => Some(contents),
            Node::Directory { .. } | Node::Link { .. } => None,
        }
    }

    /// A directory. Parent directories of other entries are created automatically, with mode 0755.
    #[must_use]
    pub fn directory(path: impl Into<PathBuf>, mode: u32) -> Self {
        Self {
            path: path.into(),
            node: Node::Directory { mode },
        }
    }
}

/// Entries with their parent directories, under relative paths. A directory comes before its
/// content.
pub(crate) struct Tree(BTreeMap<PathBuf, Node>);

impl Tree {
    pub(crate) fn new(entries: &[Entry]) -> Result<Self, Error> {
        let mut tree = BTreeMap::new();
        for entry in entries {
            let path = inside(&entry.path)?;
            if tree.insert(path, entry.node.clone()).is_some() {
                return Err(Error::Clash(entry.path.clone()));
            }
        }
        let named: Vec<PathBuf> = tree.keys().cloned().collect();
        for parent in named.iter().flat_map(|path| path.ancestors().skip(1)) {
            if parent == Path::new("") {
                continue;
            }
            let node = tree.entry(parent.to_owned()).or_insert(Node::Directory {
                mode: DIRECTORY_MODE,
            });
            if !matches!(node, Node::Directory { .. }) {
                return Err(Error::Clash(Path::new("/").join(parent)));
            }
        }
        Ok(Self(tree))
    }

    /// Writes a tar stream. All times in it are `created`.
    pub(crate) fn pack(&self, created: u64, into: impl Write) -> Result<(), Error> {
        let mut tar = tar::Builder::new(into);
        for (path, node) in &self.0 {
            append(&mut tar, path, node, created).map_err(|source| Error::Pack {
                path: path.clone(),
                source,
            })?;
        }
        tar.into_inner().map(drop).map_err(|source| Error::Pack {
            path: PathBuf::new(),
            source,
        })
    }

    /// Writes files to a directory, which must be empty or must not exist yet. They belong to the
    /// current user. An image builder's COPY gives them to root.
    pub(crate) fn unpack(&self, created: u64, into: &Path) -> Result<(), Error> {
        empty_directory(into)?;
        for (path, node) in &self.0 {
            let path = into.join(path);
            match node {
                Node::Directory { mode } => make_directory(&path, *mode)?,
                Node::File { mode, contents } => {
                    std::fs::write(&path, contents).map_err(host("writing", &path))?;
                    set_mode(&path, *mode)?;
                }
                Node::Link { target } => symlink(target, &path).map_err(host("linking", &path))?,
            }
        }
        // Children first, because writing into a directory changes its time.
        let time = UNIX_EPOCH + Duration::from_secs(created);
        for (path, node) in self.0.iter().rev() {
            if !matches!(node, Node::Link { .. }) {
                set_time(&into.join(path), time)?;
            }
        }
        set_time(into, time)
    }
}

fn append(
    tar: &mut tar::Builder<impl Write>,
    path: &Path,
    node: &Node,
    created: u64,
) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_mtime(created);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    match node {
        Node::Directory { mode } => {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(*mode);
            // tar recognizes directories by the slash at the end of the name.
            tar.append_data(&mut header, path.join(""), io::empty())
        }
        Node::File { mode, contents } => {
            header.set_entry_type(tar::EntryType::Regular);
            header.set_mode(*mode);
            header.set_size(contents.len() as u64);
            tar.append_data(&mut header, path, contents.as_slice())
        }
        Node::Link { target } => {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            tar.append_link(&mut header, path, target)
        }
    }
}

/// The path relative to the root.
fn inside(path: &Path) -> Result<PathBuf, Error> {
    let mut components = path.components();
    let rooted = components.next() == Some(Component::RootDir);
    let rest = components.as_path();
    let plain = rest
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if rooted && plain && rest != Path::new("") {
        Ok(rest.to_owned())
    } else {
        Err(Error::Path(path.to_owned()))
    }
}

/// Makes a directory, unless it exists and is empty.
pub(crate) fn empty_directory(path: &Path) -> Result<(), Error> {
    make_directory(path, DIRECTORY_MODE)?;
    let mut inside = std::fs::read_dir(path).map_err(host("listing", path))?;
    if inside.next().is_some() {
        let source = io::Error::from(io::ErrorKind::DirectoryNotEmpty);
        return Err(host("writing into", path)(source));
    }
    Ok(())
}

fn make_directory(path: &Path, mode: u32) -> Result<(), Error> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(host("making the directory", path))?;
    set_mode(path, mode)
}

/// Set after creation, so that the umask has no effect.
fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    std::fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(host("setting the mode of", path))
}

fn set_time(path: &Path, time: std::time::SystemTime) -> Result<(), Error> {
    File::open(path)
        .and_then(|file| file.set_modified(time))
        .map_err(host("setting the time of", path))
}

pub(crate) fn host(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Host {
        doing,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(entries: &[Entry]) -> Vec<String> {
        let tree = Tree::new(entries).unwrap();
        tree.0
            .keys()
            .map(|path| path.display().to_string())
            .collect()
    }

    #[test]
    fn parent_directories_are_added_automatically_and_first() {
        let entries = [
            Entry::file("/a/b/c", 0o644, "x"),
            Entry::link("/a/a", "b/c"),
        ];
        assert_eq!(names(&entries), ["a", "a/a", "a/b", "a/b/c"]);
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for path in ["relative", "/", "/a/../../b", ""] {
            let refused = Tree::new(&[Entry::file(path, 0o644, "")]);
            assert!(matches!(refused, Err(Error::Path(_))), "{path:?}");
        }
    }

    #[test]
    fn a_file_is_not_a_directory() {
        let twice = [Entry::file("/a", 0o644, ""), Entry::link("/a", "b")];
        let under = [Entry::link("/a", "/etc"), Entry::file("/a/b", 0o644, "")];
        for entries in [twice, under] {
            let refused = Tree::new(&entries);
            assert!(matches!(refused, Err(Error::Clash(path)) if path == Path::new("/a")));
        }
    }

    #[test]
    fn a_directory_has_modes_and_times_of_its_own() {
        let entries = [
            Entry::file("/bin/tool", 0o755, "tool"),
            Entry::link("/bin/alias", "tool"),
            Entry::directory("/tmp", 0o1777),
        ];
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        Tree::new(&entries)
            .unwrap()
            .unpack(1_700_000_000, &root)
            .unwrap();
        let of = |path: &str| std::fs::metadata(root.join(path)).unwrap();
        assert_eq!(of("bin/tool").permissions().mode() & 0o7777, 0o755);
        assert_eq!(of("tmp").permissions().mode() & 0o7777, 0o1777);
        assert_eq!(
            std::fs::read_link(root.join("bin/alias")).unwrap(),
            Path::new("tool")
        );
        let time = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        for path in ["bin/tool", "bin", "tmp", ""] {
            assert_eq!(of(path).modified().unwrap(), time, "{path}");
        }
        let again = Tree::new(&entries).unwrap().unpack(0, &root).unwrap_err();
        assert!(again.to_string().starts_with("writing into "));
    }
}
