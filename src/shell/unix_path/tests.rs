use std::os::unix::net::UnixStream;
use std::sync::Barrier;

use super::*;

fn listen(path: &Path) -> io::Result<(Socket, SocketFile)> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let file = SocketFile::listen(&socket, path, Some(0o600), 16)?;
    Ok((socket, file))
}

/// The second looked between the first's `bind` and `listen`, took its socket for a stale one, and
/// both served, one of them nobody.
#[test]
fn of_many_who_start_on_one_path_exactly_one_has_it() {
    // Short, whatever TMPDIR is: a socket's path holds 107 bytes.
    let folder = Path::new("/tmp").join(format!("wirewheel-claim-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("s");
    for round in 0..200 {
        if round % 2 == 0 {
            // What a process that was killed leaves.
            drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        }
        let (start, end) = (Barrier::new(4), Barrier::new(4));
        let contender = || {
            start.wait();
            let result = listen(&path);
            end.wait(); // nobody gives it up before all have tried
            match result {
                Ok((socket, _file)) => {
                    assert!(UnixStream::connect(&path).is_ok());
                    socket.set_nonblocking(true).unwrap();
                    // The looks of the others, and this connection: it is reachable.
                    assert!(socket.accept().is_ok(), "it cannot be reached");
                    1
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}");
                    0
                }
            }
        };
        let winners: u32 = std::thread::scope(|scope| {
            let threads = [(); 4].map(|()| scope.spawn(contender));
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(winners, 1, "round {round}");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "something is left behind");
    }
    fs::remove_dir(&folder).unwrap();
}

/// It waited for itself: the claim that removes the file is that under which it was made.
#[test]
fn a_socket_that_cannot_listen_is_an_error_and_leaves_no_file() {
    let folder = Path::new("/tmp").join(format!("wirewheel-deaf-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let (path, deaf) = (folder.join("s"), Socket::new(Domain::UNIX, Type::DGRAM, None).unwrap());
    assert!(SocketFile::listen(&deaf, &path, Some(0o600), 16).is_err());
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    assert!(listen(&path).is_ok());
    fs::remove_dir_all(&folder).unwrap();
}
