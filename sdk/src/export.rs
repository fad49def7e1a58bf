//! `export!`: what makes a library a Wharf module.

/// Makes this library a Wharf module. Say it once, in the crate's `lib.rs`, with what builds the application:
///
/// - a function without arguments, or one that takes [`&ServletContext`](crate::ServletContext);
/// - that returns an [`App`](crate::App), an axum `Router`, any tower `Service`, or a `Result` of one of them.
///
/// ```
/// use wharf_sdk::{App, get};
///
/// fn app() -> App {
///     App::new().servlet("hello", ["/*"], get(async |_request| "hello"))
/// }
///
/// wharf_sdk::export!(app);
/// # fn main() {}
/// ```
///
/// Options follow the function: `resources = ["db": "sql"]` (see [`sql`](crate::sql)) and `roles = ["admin"]` go into the
/// descriptor, which the container reads before it runs any code: without its resources it is refused; `allocator = own` leaves out the `#[global_allocator]`, for a crate that brings its own
/// (what such a module forgets on its heap is not freed when it is unloaded).
///
/// The macro expands to `static` items with `#[unsafe(no_mangle)]` and `#[unsafe(link_section)]`, so a crate that has it can
/// `deny(unsafe_code)` but not `forbid` it.
#[macro_export]
macro_rules! export {
    ($app:expr $(, resources = [$($resource:literal $(: $kind:literal)?),* $(,)?])? $(, roles = [$($role:literal),* $(,)?])? $(,)?) => {
        $crate::export!(@module $app, "wharf", [$($($resource $(: $kind)?),*)?], [$($($role),*)?]);
        #[allow(unsafe_code)]
        const _: () = {
            #[global_allocator]
            static ALLOCATOR: $crate::__private::ModuleAllocator = $crate::__private::ModuleAllocator;
        };
    };
    ($app:expr, allocator = own $(, resources = [$($resource:literal $(: $kind:literal)?),* $(,)?])? $(, roles = [$($role:literal),* $(,)?])? $(,)?) => {
        $crate::export!(@module $app, "own", [$($($resource $(: $kind)?),*)?], [$($($role),*)?]);
    };
    (@module $app:expr, $allocator:literal, [$($resource:literal $(: $kind:literal)?),*], [$($role:literal),*]) => {
        #[allow(unsafe_code)]
        const _: () = {
            struct Entry;

            impl $crate::__private::Entry for Entry {
                fn build(
                    context: &$crate::ServletContext,
                ) -> ::core::result::Result<
                    ::std::sync::Arc<dyn $crate::__private::Application>,
                    $crate::MappingError,
                > {
                    $crate::__private::Factory::make($app, context)
                }
            }

            extern "C" fn root() -> $crate::__private::RootModuleResult {
                $crate::__private::root::<Entry>()
            }

            /// The root module, found by the container under this name.
            // SAFETY: `root` returns the prefix reference of a `ModuleRef`.
            #[unsafe(no_mangle)]
            pub static wharf_module_root_v1: $crate::__private::LibHeader = unsafe {
                $crate::__private::LibHeader::from_constructor::<$crate::__private::ModuleRef>(
                    root,
                    $crate::__private::CheckTypeLayout::Yes,
                )
            };

            const PARTS: &[&str] = &[
                $crate::__private::DESCRIPTOR_MAGIC,
                "abi = \"", $crate::__private::ABI, "\"\n",
                "name = \"", env!("CARGO_PKG_NAME"), "\"\n",
                "version = \"", env!("CARGO_PKG_VERSION"), "\"\n",
                "sdk = \"", $crate::__private::SDK_VERSION, "\"\n",
                "rustc = \"", $crate::__private::RUSTC, "\"\n",
                "panic = \"", if cfg!(panic = "unwind") { "unwind" } else { "abort" }, "\"\n",
                "allocator = \"", $allocator, "\"\n",
                "resources = [", $("'", $resource, $(": ", $kind,)? "', ",)* "]\n",
                "roles = [", $("'", $role, "', ",)* "]\n",
            ];

            /// The descriptor, in a section of its own.
            // Exported, so that no linker drops the section.
            #[unsafe(no_mangle)]
            #[unsafe(link_section = ".wharf.descriptor")]
            pub static wharf_module_descriptor_v1: [u8; $crate::__private::total_len(PARTS)] = $crate::__private::concat(PARTS);
        };
    };
}
