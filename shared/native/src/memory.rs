//! Memory that was needed for a moment, given back to the system.
//!
//! Opening a document takes many times its bytes, in small pieces: glibc keeps them for the thread
//! that freed them, and a server would go on holding them for every thread that opened one once.

/// Input below which there is little to give back.
const LARGE_BYTES: usize = 64 << 10;

/// Give back what is free, after a call that has opened so many bytes of documents.
pub fn give_back(opened_bytes: usize) {
    if opened_bytes >= LARGE_BYTES {
        trim();
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn trim() {
    // It may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim() {}
