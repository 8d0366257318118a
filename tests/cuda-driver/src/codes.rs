//! The results of the driver's functions that the double gives, by number, name and description.

use std::ffi::CStr;

/// A result: 0 is success.
pub type Code = i32;

macro_rules! codes {
    ($($name:ident = $value:literal $text:literal),* $(,)?) => {
        $(
            #[doc = $text]
            pub const $name: Code = $value;
        )*

        /// Name and description of a result.
        pub fn describe(code: Code) -> Option<(&'static CStr, &'static CStr)> {
            let texts = match code {
                $( $value => (concat!("CUDA_", stringify!($name), "\0"), concat!($text, "\0")), )*
                _ => return None,
            };
            let text = |s: &'static str| CStr::from_bytes_with_nul(s.as_bytes()).ok();
            Some((text(texts.0)?, text(texts.1)?))
        }
    };
}

codes! {
    SUCCESS = 0 "no error",
    ERROR_INVALID_VALUE = 1 "invalid argument",
    ERROR_OUT_OF_MEMORY = 2 "out of memory",
    ERROR_NOT_INITIALIZED = 3 "initialization error",
    ERROR_STUB_LIBRARY = 34 "CUDA driver is a stub library",
    ERROR_NO_DEVICE = 100 "no CUDA-capable device is detected",
    ERROR_INVALID_DEVICE = 101 "invalid device ordinal",
    ERROR_INVALID_IMAGE = 200 "device kernel image is invalid",
    ERROR_INVALID_CONTEXT = 201 "invalid device context",
    ERROR_NO_BINARY_FOR_GPU = 209 "no kernel image is available for execution on the device",
    ERROR_INVALID_PTX = 218 "a PTX JIT compilation failed",
    ERROR_INVALID_HANDLE = 400 "invalid resource handle",
    ERROR_NOT_FOUND = 500 "named symbol not found",
    ERROR_NOT_READY = 600 "device not ready",
    ERROR_ILLEGAL_ADDRESS = 700 "an illegal memory access was encountered",
    ERROR_LAUNCH_OUT_OF_RESOURCES = 701 "too many resources requested for launch",
    ERROR_LAUNCH_FAILED = 719 "unspecified launch failure",
    ERROR_STREAM_CAPTURE_UNSUPPORTED = 900 "operation not permitted when stream is capturing",
    ERROR_STREAM_CAPTURE_INVALIDATED = 901 "operation failed due to a previous error during capture",
    ERROR_STREAM_CAPTURE_UNMATCHED = 903 "capture was not ended in the same stream as it began",
    ERROR_STREAM_CAPTURE_UNJOINED = 904 "capturing stream has unjoined work",
    ERROR_STREAM_CAPTURE_ISOLATION = 905 "dependency created on uncaptured work in another stream",
    ERROR_CAPTURED_EVENT = 907 "operation not permitted on an event last recorded in a capturing stream",
    ERROR_STREAM_CAPTURE_WRONG_THREAD = 908 "attempt to terminate a thread-local capture sequence from another thread",
}
