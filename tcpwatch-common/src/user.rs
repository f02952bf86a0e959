//! What aya asks of the types before it copies them into or out of maps and read-only data.

macro_rules! plain_old_data {
    ($($type:ty),* $(,)?) => {
        $(
            // SAFETY: `IntoBytes` says that every byte is initialised and that there is no padding, which is what the
            // copy relies on; the assertion below keeps it true.
            unsafe impl aya::Pod for $type {}
            const _: fn() = || {
                fn has_no_padding<T: zerocopy::IntoBytes + Copy + 'static>() {}
                has_no_padding::<$type>();
            };
        )*
    };
}

plain_old_data!(
    crate::config::Config,
    crate::counters::HookCounters,
    crate::counters::NetnsCounters,
    crate::counters::TableCounters,
    crate::flow::Flow,
    crate::flow::PortKey,
    crate::owner::Owner,
    crate::owner::PortOwner,
);
