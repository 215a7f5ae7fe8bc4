//! The word by which `tests/support/loops.rs` knows that GLib is there.

fn main() {
    println!("cargo:rustc-cfg=glib");
    println!("cargo:rustc-check-cfg=cfg(glib)");
}
