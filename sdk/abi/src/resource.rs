//! The resources of a generation at the border.

use abi_stable::StableAbi;
use abi_stable::std_types::{RResult, RString};

use crate::{FfiCache, FfiDataSource, FfiHttpClient, RawStr};

/// The container's functions for the resources of a generation, called with the context of its [`Host`](crate::Host).
#[repr(C)]
#[derive(StableAbi)]
pub struct ResourcesVTable {
    /// The data source with this name, or why not.
    pub data_source: unsafe extern "C" fn(ctx: *const (), name: RawStr) -> RResult<FfiDataSource, RString>,
    /// The cache with this name, or why not.
    pub cache: unsafe extern "C" fn(ctx: *const (), name: RawStr) -> RResult<FfiCache, RString>,
    /// The HTTP client with this name, or why not.
    pub http_client: unsafe extern "C" fn(ctx: *const (), name: RawStr) -> RResult<FfiHttpClient, RString>,
    /// The settings of a resource as JSON, or why not.
    pub settings: unsafe extern "C" fn(ctx: *const (), name: RawStr) -> RResult<RString, RString>,
}
