//! What does the cryptography.

/// What a call of the engine came to.
#[derive(Debug)]
pub enum Outcome<T, E> {
    Done(T),
    /// It needs more ciphertext from the peer first.
    Again,
    Failed(E),
}

/// The cryptography of one connection. Not one call blocks; each may leave ciphertext to be taken.
pub trait RecordEngine {
    type Error;
    /// Plaintext, or ciphertext to be sent.
    type Bytes: AsRef<[u8]>;

    /// Ciphertext came from the peer.
    ///
    /// # Errors
    /// The engine's, of a kind that ends the connection.
    fn feed(&mut self, ciphertext: &[u8]) -> Result<(), Self::Error>;

    fn handshake(&mut self) -> Outcome<(), Self::Error>;

    /// At most `max` bytes of plaintext; none is the peer's `close_notify`.
    fn read(&mut self, max: usize) -> Outcome<Self::Bytes, Self::Error>;

    /// Sends `close_notify` and looks for the peer's.
    fn shutdown(&mut self) -> Outcome<(), Self::Error>;

    /// Ciphertext that was fed and not yet looked at, bytes.
    ///
    /// # Errors
    /// As `feed`.
    fn unread(&mut self) -> Result<usize, Self::Error>;

    /// Plaintext of a record that was read in part, bytes.
    ///
    /// # Errors
    /// As `feed`.
    fn pending(&mut self) -> Result<usize, Self::Error>;

    /// Ciphertext that is to be sent, bytes.
    ///
    /// # Errors
    /// As `feed`.
    fn held(&mut self) -> Result<usize, Self::Error>;

    /// The ciphertext that is to be sent.
    ///
    /// # Errors
    /// As `feed`.
    fn take(&mut self) -> Result<Self::Bytes, Self::Error>;
}
