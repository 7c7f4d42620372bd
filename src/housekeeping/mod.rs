//! The cold thread: segment preparation, windows by schedule, admin.
