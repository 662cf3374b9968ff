//! Who wants to hear of changes.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

type Callback = Arc<dyn Fn() + Send + Sync>;

/// Callbacks, each of them called for each change as long as its subscription lives.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    subscribed: Mutex<Subscribed>,
}

#[derive(Default)]
struct Subscribed {
    next: u64,
    callbacks: Vec<(u64, Callback)>,
}

impl fmt::Debug for Subscribed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscribed")
            .field("count", &self.callbacks.len())
            .finish_non_exhaustive()
    }
}

/// Has a callback called as long as it lives.
#[must_use = "the callback is called only as long as this lives"]
#[derive(Debug)]
pub struct Subscription {
    listeners: Weak<Listeners>,
    number: u64,
}

impl Listeners {
    pub(crate) fn subscribe(self: &Arc<Self>, callback: Callback) -> Subscription {
        let mut subscribed = self.lock();
        let number = subscribed.next;
        subscribed.next += 1;
        subscribed.callbacks.push((number, callback));
        Subscription {
            listeners: Arc::downgrade(self),
            number,
        }
    }

    pub(crate) fn notify(&self) {
        // Called without the lock, so that a callback may subscribe or end a subscription.
        let callbacks = self.lock().callbacks.clone();
        for (_, callback) in callbacks {
            callback();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Subscribed> {
        // Every change is one step.
        self.subscribed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(listeners) = self.listeners.upgrade() {
            let mut subscribed = listeners.lock();
            subscribed
                .callbacks
                .retain(|(number, _)| *number != self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callback_is_called_as_long_as_it_is_subscribed_and_may_subscribe() {
        let listeners = Arc::new(Listeners::default());
        let calls = Arc::new(Mutex::new((0, 0)));
        let first = {
            let (calls, weak) = (Arc::clone(&calls), Arc::downgrade(&listeners));
            listeners.subscribe(Arc::new(move || {
                calls.lock().unwrap().0 += 1;
                drop(weak.upgrade().unwrap().subscribe(Arc::new(|| {})));
            }))
        };
        let _second = {
            let calls = Arc::clone(&calls);
            listeners.subscribe(Arc::new(move || calls.lock().unwrap().1 += 1))
        };
        listeners.notify();
        listeners.notify();
        drop(first);
        listeners.notify();
        assert_eq!(*calls.lock().unwrap(), (2, 3));
    }
}
