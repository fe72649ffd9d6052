//! Compressed archive files, told by their first bytes, never by their name.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use crate::fault::{Context, Fault, Result};

/// Longest of the magic numbers below.
const MAGIC: usize = 6;

/// Compressed bytes read at once.
const CHUNK: usize = 128 * 1024;

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all, or in no way we know.
    None,
    /// RFC 1952, one member or several.
    Gzip,
    /// The .xz format, one stream or several.
    Xz,
    /// RFC 8878, one frame or several.
    Zstd,
}

impl Compression {
    /// What the first bytes of a file tell.
    ///
    /// # Errors
    /// The name of a compression that is known but not supported.
    pub fn detect(start: &[u8]) -> Result<Self, &'static str> {
        const MAGICS: [(&[u8], Result<Compression, &str>); 6] = [
            (&[0x1f, 0x8b], Ok(Compression::Gzip)),
            (&[0xfd, b'7', b'z', b'X', b'Z', 0], Ok(Compression::Xz)),
            (&[0x28, 0xb5, 0x2f, 0xfd], Ok(Compression::Zstd)),
            (b"BZh", Err("bzip2")),
            (&[0x5d, 0, 0], Err("lzma")),
            (b"PK\x03\x04", Err("zip")),
        ];
        let known = MAGICS.iter().find(|(magic, _)| start.starts_with(magic));
        known.map_or(Ok(Self::None), |(_, answer)| *answer)
    }
}

/// Opens an archive file for reading what was compressed in it.
///
/// # Errors
/// `NotFound` if there is no such file, `Usage` if it is a directory, and as [`decompress`].
pub fn open(path: &Path) -> Result<Box<dyn Read + Send>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Fault::not_found(format!(
                "open archive: {}: no such file",
                crate::fault::printable(&path.display().to_string())
            )));
        }
        other => other.context("open archive", path.display())?,
    };
    if file.metadata().context("look at", path.display())?.is_dir() {
        return Err(Fault::usage(format!("open archive: {}: is a directory", path.display()))
            .hint("a directory is named without `tar:`"));
    }
    decompress(file, &path.display().to_string())
}

/// Reads what was compressed in `input`. Errors while reading, such as a checksum that does not fit or an
/// end that comes too early, begin with `name`.
///
/// # Errors
/// `Failed` if the first bytes cannot be read or tell of a compression that is not supported.
pub fn decompress(input: impl Read + Send + 'static, name: &str) -> Result<Box<dyn Read + Send>> {
    let mut start = Vec::with_capacity(MAGIC);
    let mut input = input;
    input.by_ref().take(MAGIC as u64).read_to_end(&mut start).context("read archive", name)?;
    let found = Compression::detect(&start).map_err(|known| {
        Fault::failed(format!("read archive: {name}: {known} is not supported"))
            .hint("decompress it, or compress it with gzip, xz or zstd")
    })?;
    let whole = BufReader::with_capacity(CHUNK, io::Cursor::new(start).chain(input));
    let input: Box<dyn Read + Send> = match found {
        Compression::None => Box::new(whole),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(whole)),
        Compression::Xz => Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(whole)),
        Compression::Zstd => zstd_reader(whole).context("read archive", name)?,
    };
    Ok(Box::new(Named { input, name: name.to_owned() }))
}

fn zstd_reader(whole: impl BufRead + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    Ok(Box::new(zstd::stream::read::Decoder::with_buffer(whole)?))
}

/// Puts the name of the file before each error.
struct Named {
    input: Box<dyn Read + Send>,
    name: String,
}

impl Read for Named {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.input.read(buffer).map_err(|error| {
            let why = match error.kind() {
                io::ErrorKind::Interrupted => return error,
                io::ErrorKind::UnexpectedEof => "the file ends too early".to_owned(),
                _ => error.to_string(),
            };
            io::Error::new(error.kind(), format!("{}: {why}", self.name))
        })
    }
}
