use std::os::unix::fs::symlink;

use super::*;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir();
        let path = path.join(format!("wirewheel-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(fs::canonicalize(path).unwrap())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn names_below(top: &Path, file: &Path) -> Vec<String> {
    let below = |step: Step| {
        let path = step.folder.join(step.name);
        Some(path.strip_prefix(top).ok()?.to_str()?.to_owned())
    };
    steps(file).into_iter().filter_map(below).filter(|name| !name.is_empty()).collect()
}

#[test]
fn every_name_on_the_way_matters_and_those_that_links_put_in() {
    let Folder(top) = &Folder::new("steps");
    fs::create_dir(top.join("first")).unwrap();
    fs::write(top.join("first/chain.pem"), "").unwrap();
    symlink("first", top.join("now")).unwrap();
    symlink("now/chain.pem", top.join("chain.pem")).unwrap();
    let names = names_below(top, &top.join("chain.pem"));
    assert_eq!(names, ["chain.pem", "now", "first", "first/chain.pem"]);
    let up = top.join("first/../chain.pem");
    assert_eq!(names_below(top, &up)[..2], ["first", "chain.pem"]);
    symlink(top.join("first"), top.join("absolute")).unwrap();
    let names = names_below(top, &top.join("absolute/chain.pem"));
    assert_eq!(names, ["absolute", "first", "first/chain.pem"]);
    assert_eq!(names_below(top, &top.join("not/there")), ["not", "not/there"]);
}

#[test]
fn links_in_a_circle_have_an_end() {
    let Folder(top) = &Folder::new("circle");
    symlink("b", top.join("a")).unwrap();
    symlink("a", top.join("b")).unwrap();
    assert!(names_below(top, &top.join("a")).len() <= LINKS_MAX + 1);
}
