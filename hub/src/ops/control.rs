//! The control socket of a hub that runs: how its operator asks it for a backup, on its own machine.
//!
//! A socket in the data directory, which only the hub's user may enter: who may read the store may ask for its bytes,
//! and nobody else. A backup holds the hub's key, so the HTTP API, whose keys clients have, gives none. Owns the socket
//! and its thread; one request at a time. May not write to the store.

use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tessera_storage::Engine;

use super::backup;

/// What the socket is called in the data directory.
const SOCKET: &str = "control";
/// What asks for a backup.
const ASK: &[u8; 9] = b"backup 1\n";
/// How long who asks may take to say what for.
const ASK_PATIENCE: Duration = Duration::from_secs(5);
/// How long who asked may leave what was sent unread, before it is given up: the store keeps what it frees meanwhile.
const READ_PATIENCE: Duration = Duration::from_secs(60);

/// The socket, until this is dropped.
#[derive(Debug)]
pub struct Control {
    folder: File,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Starts to listen in a data directory whose lock this process has.
    pub fn start(store: Arc<dyn Engine>, data: &Path) -> io::Result<Control> {
        let folder = File::open(data)?;
        let path = socket_in(&folder);
        // Of a hub that was killed.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        let ending = Arc::new(AtomicBool::new(false));
        let desk = Desk { store, ending: ending.clone() };
        let thread =
            std::thread::Builder::new().name("tessera-control".into()).spawn(move || desk.run(&listener))?;
        Ok(Control { folder, ending, thread: Some(thread) })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        let path = socket_in(&self.folder);
        // Wakes the thread, which then sees that it is to end.
        let woken = UnixStream::connect(&path);
        if let (Ok(_), Some(thread)) = (woken, self.thread.take())
            && thread.join().is_err()
        {
            tracing::error!("the control socket's thread panicked");
        }
        let _ = fs::remove_file(path);
    }
}

/// The socket's path by way of its open directory: the name of a socket may be 107 bytes long, a directory's longer.
fn socket_in(folder: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()))
}

/// Asks the hub that runs on a directory for a backup.
pub(super) fn ask(data: &Path) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket_in(&File::open(data)?))?;
    stream.write_all(ASK)?;
    Ok(stream)
}

struct Desk {
    store: Arc<dyn Engine>,
    ending: Arc<AtomicBool>,
}

impl Desk {
    fn run(&self, listener: &UnixListener) {
        while let Ok((stream, _)) = listener.accept() {
            if self.ending.load(Ordering::Relaxed) {
                return;
            }
            if let Err(error) = self.serve(stream) {
                tracing::warn!(%error, "a backup was not given");
            }
        }
    }

    fn serve(&self, mut stream: UnixStream) -> Result<(), Box<dyn std::error::Error>> {
        stream.set_read_timeout(Some(ASK_PATIENCE))?;
        stream.set_write_timeout(Some(READ_PATIENCE))?;
        let mut asked = [0; ASK.len()];
        stream.read_exact(&mut asked)?;
        if asked != *ASK {
            return Err("the control socket was asked for something that this hub does not know".into());
        }
        tracing::info!("a backup is being given");
        let snapshot = self.store.snapshot()?;
        let mut to = BufWriter::new(stream);
        backup::stream(&*snapshot, &mut to, &|| !self.ending.load(Ordering::Relaxed))?;
        to.flush()?;
        tracing::info!("the backup was given");
        Ok(())
    }
}
