//! A folder whose files are answers: what it is served with, and the answer to a request for one of them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::io::Errno;

use crate::protocol::content_coding::{ContentCoding, weight};
use crate::protocol::head::RequestHead;

use crate::app::call::Call;
use crate::app::content_type::{content_type, is_compressible};
use crate::app::disk_folder::DiskFolder;
use crate::app::embedded_folder::EmbeddedFolder;
use crate::app::folder_path::{FolderPath, fits};
use crate::app::folder_source::{Content, Entry, Opened, Source};
use crate::app::open_folders::OpenFolders;
use crate::app::response::{Body, Response, check_header};

/// What a folder's pages are served with unless it is said otherwise: a browser keeps them and asks each time
/// whether they have changed.
const CACHE_CONTROL: &str = "no-cache";

/// A folder for [`Routing::folder`](crate::Routing::folder): where its files are, and how they are served.
///
/// A path is enough for most (`route.folder("/", "/srv/www")`). What the defaults are:
///
/// * Of a folder, `index.html` is served; without the slash at the end, the client is sent to the path with
///   it.
/// * A file has the content type of its name's ending, an `ETag`, the date of its last change, and
///   `Cache-Control: no-cache`: a browser keeps it and asks each time whether it has changed.
/// * Conditions and ranges are what RFC 9110 makes of them: 304, 412, 206, 416. Of several ranges the whole
///   is sent.
/// * Beside `app.js` there may be `app.js.br` and `app.js.gz`: who takes that coding is sent the smaller
///   file. One that is older than its original is not used.
/// * Names that begin with a dot are not there, but for `.well-known` (RFC 8615).
/// * Nothing outside the folder is served: no `..`, no link that leads out. Where the system lacks `openat2`
///   (Linux before 5.6, some containers), which the log says at the start, no link at all is followed. Pipes
///   and devices are not there.
/// * The folder may be replaced while the server runs, by renaming or by switching a link to it: requests
///   that come after that get the new one.
///
/// ```
/// use wirewheel::pages::Folder;
/// use wirewheel::{Application, Call, WebSockets, on_message};
/// fn module(app: &mut Application) {
///     app.install(WebSockets::new());
///     app.routing(|route| {
///         route.web_socket("/ws", |_call: &Call| on_message(|session, m| session.send(m)));
///         route.folder(
///             "/",
///             Folder::new("/srv/www")
///                 .single_page("index.html")
///                 .cache_control("/assets/*", "public, max-age=31536000, immutable"),
///         );
///     });
/// }
/// ```
pub struct Folder {
    place: Place,
    index: Option<String>,
    single_page: Option<String>,
    cache: Vec<(String, String)>,
    with_hidden: bool,
    precompressed: bool,
}

/// Where its files are.
enum Place {
    Disk(PathBuf),
    /// Read already; or what is wrong with the table.
    Embedded(Result<Box<dyn Source + Send + Sync>, String>),
}

impl fmt::Debug for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match &self.place {
            Place::Disk(path) => path.display().to_string(),
            Place::Embedded(_) => "embedded".to_owned(),
        };
        f.debug_struct("Folder").field("place", &place).finish_non_exhaustive()
    }
}

impl From<&str> for Folder {
    fn from(path: &str) -> Self {
        Self::new(path)
    }
}

impl From<String> for Folder {
    fn from(path: String) -> Self {
        Self::new(path)
    }
}

impl From<&Path> for Folder {
    fn from(path: &Path) -> Self {
        Self::new(path)
    }
}

impl From<PathBuf> for Folder {
    fn from(path: PathBuf) -> Self {
        Self::new(path)
    }
}

impl Folder {
    /// The folder at a path, which has to be there when the server starts. A relative path counts from where
    /// the process is then.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self::at(Place::Disk(path.into()))
    }

    /// A folder that is part of the program: paths and their bytes, as
    /// [`include_bytes!`](core::include_bytes) makes them. The `ETag`s follow from the bytes; there are no
    /// dates. A path twice, and one that nobody could ask for, is a mistake that starting the server returns.
    ///
    /// ```
    /// use wirewheel::pages::Folder;
    /// use wirewheel::Application;
    /// const PAGES: &[(&str, &[u8])] = &[
    ///     ("index.html", b"<script src=app.js></script>"), // include_bytes!("../www/index.html")
    ///     ("app.js", b"alert('hello')"),
    /// ];
    /// fn module(app: &mut Application) {
    ///     app.routing(|route| route.folder("/", Folder::embedded(PAGES)));
    /// }
    /// ```
    pub fn embedded(files: &[(&'static str, &'static [u8])]) -> Self {
        let source = EmbeddedFolder::new(files);
        let boxed = source.map(|source| Box::new(source) as Box<dyn Source + Send + Sync>);
        Self::at(Place::Embedded(boxed))
    }

    fn at(place: Place) -> Self {
        Self {
            place,
            index: Some("index.html".into()),
            single_page: None,
            cache: Vec::new(),
            with_hidden: false,
            precompressed: true,
        }
    }

    /// The file that is served for a folder; `None` serves none. Default `index.html`.
    ///
    /// ```
    /// use wirewheel::pages::Folder;
    /// let downloads = Folder::new("/srv/images").index(None);
    /// let old = Folder::new("/srv/old").index("index.htm");
    /// # let _ = (downloads, old);
    /// ```
    #[must_use]
    pub fn index<'a>(mut self, name: impl Into<Option<&'a str>>) -> Self {
        self.index = name.into().map(str::to_owned);
        self
    }

    /// The page that is served, with 200, where there is no file: for an application whose script makes pages
    /// of paths. Only to who asks for a page (`Accept` names `text/html`, as browsers do for what goes into
    /// the address bar): a script, a picture or data that is missing is 404. Default: none.
    #[must_use]
    pub fn single_page(mut self, file: impl Into<String>) -> Self {
        self.single_page = Some(file.into());
        self
    }

    /// `Cache-Control` for the files that fit a pattern, such as `*.woff2` or `/assets/*`: a path in the
    /// folder, beginning with a slash, in which `*` stands for any characters. Of several the first that fits
    /// counts; an empty value sends none. Default for all: `no-cache`.
    #[must_use]
    pub fn cache_control(mut self, pattern: impl Into<String>, value: impl Into<String>) -> Self {
        self.cache.push((pattern.into(), value.into()));
        self
    }

    /// Whether names that begin with a dot are served. Default false, but for `.well-known`.
    ///
    /// ```
    /// let everything = wirewheel::pages::Folder::new("/srv/mirror").hidden_files(true);
    /// # let _ = everything;
    /// ```
    #[must_use]
    pub fn hidden_files(mut self, on: bool) -> Self {
        self.with_hidden = on;
        self
    }

    /// Whether `.br` and `.gz` beside a file are sent in its place to who takes them. Default true.
    ///
    /// ```
    /// let without = wirewheel::pages::Folder::new("/srv/www").precompressed(false);
    /// # let _ = without;
    /// ```
    #[must_use]
    pub fn precompressed(mut self, on: bool) -> Self {
        self.precompressed = on;
        self
    }

    /// What answers below a mount with that path; or the first mistake.
    pub(crate) fn serve_at(
        self,
        mount: &str,
        open_folders: &Rc<OpenFolders>,
    ) -> Result<impl Fn(&Call) -> Response + 'static, String> {
        for (pattern, value) in &self.cache {
            if !pattern.starts_with(['/', '*']) {
                return Err(format!("cache_control {pattern:?}: it must start with '/' or '*'"));
            }
            check_header("Cache-Control", value)?;
        }
        let source: Box<dyn Source> = match self.place {
            Place::Embedded(source) => source?,
            Place::Disk(path) => match DiskFolder::open(&path, Rc::clone(open_folders)) {
                Ok(folder) => Box::new(folder),
                Err(error) => return Err(format!("{}: {error}", path.display())),
            },
        };
        let served = Served {
            source,
            mount_segments: mount.split('/').filter(|segment| !segment.is_empty()).count(),
            index: self.index,
            single_page: self.single_page,
            cache: self.cache,
            with_hidden: self.with_hidden,
            precompressed: self.precompressed,
        };
        Ok(move |call: &Call| served.answer(call))
    }
}

/// A folder that is served.
struct Served {
    source: Box<dyn Source>,
    mount_segments: usize,
    index: Option<String>,
    single_page: Option<String>,
    cache: Vec<(String, String)>,
    with_hidden: bool,
    precompressed: bool,
}

impl Served {
    fn answer(&self, call: &Call) -> Response {
        let path = FolderPath::parse(call.path(), self.mount_segments);
        let path = path.filter(|path| self.with_hidden || !path.is_hidden());
        let found = self.source.open().and_then(|root| {
            let found = path.map_or(Err(Errno::NOENT), |path| self.found(&*root, &path, call));
            match found {
                Err(error) if is_missing(error) => self.fallback(&*root, call),
                found => found,
            }
        });
        found.unwrap_or_else(refusal)
    }

    fn found(
        &self,
        root: &dyn Opened,
        path: &FolderPath<'_>,
        call: &Call,
    ) -> Result<Response, Errno> {
        let mut names: Vec<&str> = path.names.iter().map(AsRef::as_ref).collect();
        if path.is_folder {
            names.push(self.index.as_deref().ok_or(Errno::NOENT)?);
        }
        match root.entry(&names)? {
            Entry::File(file) => self.file(root, &names, file, call),
            Entry::Folder if path.is_folder => Err(Errno::NOENT),
            Entry::Folder => Ok(into_folder(call)),
        }
    }

    /// The page of an application whose script knows what the path means.
    fn fallback(&self, root: &dyn Opened, call: &Call) -> Result<Response, Errno> {
        let page = self.single_page.as_deref().ok_or(Errno::NOENT)?;
        if !wants_page(call.head()) {
            return Ok(refusal(Errno::NOENT).header("Vary", "Accept"));
        }
        let names: Vec<&str> = page.split('/').filter(|name| !name.is_empty()).collect();
        match root.entry(&names)? {
            Entry::File(file) => Ok(self.file(root, &names, file, call)?.header("Vary", "Accept")),
            Entry::Folder => Err(Errno::NOENT),
        }
    }

    /// A file in the coding that the client likes best.
    fn file(
        &self,
        root: &dyn Opened,
        names: &[&str],
        file: Content,
        call: &Call,
    ) -> Result<Response, Errno> {
        let name = names.last().copied().unwrap_or_default();
        let content_type = content_type(Path::new(name));
        let mut response = if self.precompressed && is_compressible(content_type) {
            let best = best_coding(root, names, file, call.head());
            let coded = best.map(|(file, coding)| coded(response(file, content_type), coding));
            coded.unwrap_or_else(|| Response::refusal(406)).header("Vary", "Accept-Encoding")
        } else {
            response(file, content_type)
        };
        let path = format!("/{}", names.join("/"));
        let of_path = self.cache.iter().find(|(pattern, _)| fits(pattern, &path));
        let cache_control = of_path.map_or(CACHE_CONTROL, |(_, value)| value);
        if !cache_control.is_empty() {
            response = response.header("Cache-Control", cache_control);
        }
        let response = response.header("X-Content-Type-Options", "nosniff");
        // Of a file of the system the server does it, which knows the time.
        Ok(response.conditional(call))
    }
}

/// The file itself or one beside it, whichever coding the client likes best; `None` if it takes none of them.
fn best_coding(
    root: &dyn Opened,
    names: &[&str],
    file: Content,
    head: &RequestHead,
) -> Option<(Content, ContentCoding)> {
    let (name, folders) = names.split_last()?;
    for coding in ContentCoding::accepted(head) {
        let ending = match coding {
            ContentCoding::Brotli => ".br",
            ContentCoding::Gzip => ".gz",
            ContentCoding::Identity => return Some((file, coding)),
        };
        let name = format!("{name}{ending}");
        let beside: Vec<&str> = folders.iter().copied().chain([name.as_str()]).collect();
        match root.entry(&beside) {
            Ok(Entry::File(beside)) if !beside.is_older_than(&file) => {
                return Some((beside, coding));
            }
            _ => {}
        }
    }
    None
}

fn response(file: Content, content_type: &str) -> Response {
    match file {
        Content::OnDisk(file) => Response::of_file(file, content_type),
        Content::Embedded { bytes, etag } => {
            Response::with_body(content_type, Body::Static(bytes)).header("ETag", etag)
        }
    }
}

fn coded(response: Response, coding: ContentCoding) -> Response {
    match coding {
        ContentCoding::Identity => response,
        coding => response.header("Content-Encoding", coding.name()),
    }
}

/// To the same path with a slash, so that a page's relative links work. Relative itself: an absolute
/// one such as `//elsewhere/` would lead to another server.
fn into_folder(call: &Call) -> Response {
    let last = call.path().rsplit('/').next().unwrap_or_default();
    let query = call.query();
    let mark = if query.is_empty() { "" } else { "?" };
    let location = format!("./{last}/{mark}{query}");
    // Else a browser would keep it for ever, whatever becomes of the folder.
    Response::new(301).header("Location", location).header("Cache-Control", CACHE_CONTROL)
}

/// Whether a request is for a page, as that of an address bar is; `*/*` stands for anything else too.
fn wants_page(head: &RequestHead) -> bool {
    head.tokens("accept").any(|member| {
        let (name, parameters) = member.split_once(';').unwrap_or((member, ""));
        // RFC 9110 section 12.4.2: a weight of 0 is "not acceptable".
        name.trim_end().eq_ignore_ascii_case("text/html") && weight(parameters) != Some(0)
    })
}

/// Whether there is nothing that could be served: links that lead out end here too.
fn is_missing(error: Errno) -> bool {
    matches!(
        error,
        Errno::NOENT
            | Errno::NOTDIR
            | Errno::XDEV
            | Errno::LOOP
            | Errno::NAMETOOLONG
            | Errno::INVAL
            | Errno::ILSEQ
            | Errno::NXIO
            | Errno::NODEV
    )
}

fn refusal(error: Errno) -> Response {
    match error {
        missing if is_missing(missing) => Response::refusal(404),
        Errno::ACCESS | Errno::PERM => Response::refusal(403),
        Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN => {
            Response::refusal(503).header("Retry-After", "1")
        }
        error => Response::faulty(format!("a folder: {error}")),
    }
}
