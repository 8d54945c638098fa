//! Work on the runtime that ends with whoever waits for it.

use std::pin::Pin;
use std::task::{Context, Poll};

use icefield_query::{Error, ErrorKind, Result};
use tokio::task::JoinHandle;

/// A task of its own, so that several share the cores; dropped, it is stopped.
pub(crate) struct Task<T>(JoinHandle<Result<T>>);

impl<T: Send + 'static> Task<T> {
    pub(crate) fn spawn(work: impl Future<Output = Result<T>> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|ended| {
            ended.unwrap_or_else(|error| {
                let message = format!("a rewrite was interrupted: {error}");
                Err(Error::new(ErrorKind::Internal, message))
            })
        })
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
