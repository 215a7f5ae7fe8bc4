//! The content types of files, by the endings of their names.

use std::path::Path;

const UNKNOWN: &str = "application/octet-stream";

/// Endings in small letters, with what a page's server meets: of IANA's registry, and of the list of the
/// WHATWG for scripts, fonts, sounds and films. In order, to be searched by halves.
const TYPES: [(&str, &str); 86] = [
    ("3gp", "video/3gpp"),
    ("7z", "application/x-7z-compressed"),
    ("aac", "audio/aac"),
    ("apk", "application/vnd.android.package-archive"),
    ("apng", "image/apng"),
    ("atom", "application/atom+xml"),
    ("avif", "image/avif"),
    ("bin", UNKNOWN),
    ("bmp", "image/bmp"),
    ("br", UNKNOWN),
    ("bz2", "application/x-bzip2"),
    ("cjs", "text/javascript; charset=utf-8"),
    ("conf", "text/plain; charset=utf-8"),
    ("crt", "application/x-x509-ca-cert"),
    ("css", "text/css; charset=utf-8"),
    ("csv", "text/csv; charset=utf-8"),
    ("deb", "application/vnd.debian.binary-package"),
    ("doc", "application/msword"),
    ("docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    ("eot", "application/vnd.ms-fontobject"),
    ("epub", "application/epub+zip"),
    ("flac", "audio/flac"),
    ("geojson", "application/geo+json"),
    ("gif", "image/gif"),
    ("glb", "model/gltf-binary"),
    ("gltf", "model/gltf+json"),
    ("gz", "application/gzip"),
    ("heic", "image/heic"),
    ("htm", "text/html; charset=utf-8"),
    ("html", "text/html; charset=utf-8"),
    ("ico", "image/x-icon"),
    ("ics", "text/calendar; charset=utf-8"),
    ("jar", "application/java-archive"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("jsonld", "application/ld+json"),
    ("jxl", "image/jxl"),
    ("log", "text/plain; charset=utf-8"),
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("m4a", "audio/mp4"),
    ("m4s", "video/iso.segment"),
    ("m4v", "video/mp4"),
    ("map", "application/json"),
    ("md", "text/markdown; charset=utf-8"),
    ("mid", "audio/midi"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("mov", "video/quicktime"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("mpd", "application/dash+xml"),
    ("oga", "audio/ogg"),
    ("ogg", "audio/ogg"),
    ("ogv", "video/ogg"),
    ("opus", "audio/ogg; codecs=opus"),
    ("otf", "font/otf"),
    ("pdf", "application/pdf"),
    ("pem", "application/x-pem-file"),
    ("png", "image/png"),
    ("rss", "application/rss+xml"),
    ("svg", "image/svg+xml"),
    ("tar", "application/x-tar"),
    ("tif", "image/tiff"),
    ("tiff", "image/tiff"),
    ("toml", "application/toml"),
    ("ts", "video/mp2t"),
    ("ttc", "font/collection"),
    ("ttf", "font/ttf"),
    ("txt", "text/plain; charset=utf-8"),
    ("vtt", "text/vtt; charset=utf-8"),
    ("wasm", "application/wasm"),
    ("wav", "audio/wav"),
    ("weba", "audio/webm"),
    ("webm", "video/webm"),
    ("webmanifest", "application/manifest+json"),
    ("webp", "image/webp"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("xhtml", "application/xhtml+xml"),
    ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    ("xml", "application/xml"),
    ("xz", "application/x-xz"),
    ("yaml", "application/yaml"),
    ("zip", "application/zip"),
    ("zst", "application/zstd"),
];

/// The content type by the ending of a file's name.
pub(crate) fn content_type(name: &Path) -> &'static str {
    let ending = name.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let ending = ending.to_ascii_lowercase();
    let found = TYPES.binary_search_by_key(&ending.as_str(), |(known, _)| known);
    found.ok().and_then(|index| TYPES.get(index)).map_or(UNKNOWN, |(_, content_type)| content_type)
}

/// Whether what has this type gets smaller by being compressed: text, and what is written as text.
pub(crate) fn is_compressible(content_type: &str) -> bool {
    const OTHERS: [&str; 9] = [
        "application/json",
        "application/wasm",
        "application/xml",
        "application/toml",
        "application/yaml",
        "application/vnd.ms-fontobject",
        "application/vnd.apple.mpegurl",
        "font/ttf",
        "font/otf",
    ];
    content_type.starts_with("text/")
        || content_type.ends_with("+xml")
        || content_type.ends_with("+json")
        || OTHERS.contains(&content_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_can_be_sent() {
        assert!(TYPES.is_sorted_by(|(one, _), (other, _)| one < other));
        for (ending, content_type) in TYPES {
            assert!(content_type.contains('/') && content_type.is_ascii(), "{ending}");
            assert_eq!(ending, ending.to_ascii_lowercase());
        }
    }

    #[test]
    fn names_have_types() {
        for (name, expected) in [
            ("a.html", "text/html; charset=utf-8"),
            ("A.HTML", "text/html; charset=utf-8"),
            ("app.min.js", "text/javascript; charset=utf-8"),
            ("song.opus", "audio/ogg; codecs=opus"),
            ("song.m4a", "audio/mp4"),
            ("face.ttf", "font/ttf"),
            ("app.js.gz", "application/gzip"),
            ("README", UNKNOWN),
            (".html", UNKNOWN),
            ("a.", UNKNOWN),
            ("a.html~", UNKNOWN),
        ] {
            assert_eq!(content_type(Path::new(name)), expected, "{name}");
        }
        let compressible = ["a.js", "a.svg", "a.json", "a.webmanifest", "a.wasm", "a.ttf"];
        assert!(compressible.iter().all(|name| is_compressible(content_type(Path::new(name)))));
        let others = ["a.png", "a.woff2", "a.mp3", "a.gz", "a"];
        assert!(!others.iter().any(|name| is_compressible(content_type(Path::new(name)))));
    }
}
