//! What the driver's documentation forbids, or does not promise: the double refuses it.

mod calls;

use std::ffi::c_void;
use std::ptr::null_mut;

use nnc_cuda_driver_double::codes;

use calls::*;

const PTX: &std::ffi::CStr = c".version 7.0
.target sm_80
.address_size 64
.visible .entry store(.param .u64 p) .maxntid 64, 1, 1 {
.reg .b64 %a;
.reg .b32 %v;
ld.param.u64 %a, [p];
mov.u32 %v, 7;
st.global.u32 [%a], %v;
ret;
}
";

/// One process is one world, so this is one test.
#[test]
fn what_is_not_allowed_is_refused() {
    let mut context = null_mut();
    // SAFETY: pointers are to variables that live.
    unsafe {
        assert_eq!(cuInit(0), codes::SUCCESS);
        assert_eq!(cuDevicePrimaryCtxRelease_v2(0), codes::ERROR_INVALID_CONTEXT, "it was not retained");
        assert_eq!(cuDevicePrimaryCtxRetain(&mut context, 1), codes::ERROR_INVALID_DEVICE);
        assert_eq!(cuDevicePrimaryCtxRetain(&mut context, 0), codes::SUCCESS);
        assert_eq!(cuCtxSetCurrent(context), codes::SUCCESS);
        contexts_belong_to_threads(context.addr());
        captures();
        events();
        launches();
        handles();
    }
}

/// # Safety
/// That is the address of the context, which is retained.
unsafe fn contexts_belong_to_threads(context: usize) {
    let other = std::thread::spawn(move || {
        let (mut address, context) = (0, std::ptr::without_provenance_mut::<c_void>(context));
        // SAFETY: the pointer is to a variable that lives; the double follows no pointer to a context.
        unsafe {
            let before = cuMemAlloc_v2(&mut address, 4);
            let nobody = cuCtxSetCurrent(std::ptr::without_provenance_mut(99));
            (before, nobody, cuCtxSetCurrent(context), cuMemAlloc_v2(&mut address, 4), cuMemFree_v2(address))
        }
    });
    let (invalid, fine) = (codes::ERROR_INVALID_CONTEXT, codes::SUCCESS);
    assert_eq!(other.join().unwrap(), (invalid, invalid, fine, fine, fine));
}

/// # Safety
/// A context is this thread's.
unsafe fn captures() {
    let (mut stream, mut other, mut event) = (null_mut(), null_mut(), null_mut());
    let (mut graph, mut pinned, mut address) = (null_mut(), null_mut(), 0);
    // SAFETY: pointers are to variables that live.
    unsafe {
        assert_eq!(
            cuStreamCreate(&mut stream, 0),
            codes::ERROR_INVALID_VALUE,
            "it waits for the null stream"
        );
        assert_eq!(cuStreamCreate(&mut stream, 1), codes::SUCCESS);
        assert_eq!(cuStreamCreate(&mut other, 1), codes::SUCCESS);
        assert_eq!(cuEventCreate(&mut event, 2), codes::SUCCESS);
        assert_eq!(cuMemAlloc_v2(&mut address, 4), codes::SUCCESS);
        assert_eq!(cuMemHostAlloc(&mut pinned, 4, 0), codes::SUCCESS);
        assert_eq!(cuStreamBeginCapture_v2(stream, 3), codes::ERROR_INVALID_VALUE);
        // What is no part of a capture spoils it: the end has no graph.
        let mut unused = null_mut();
        let calls: [&mut dyn FnMut() -> i32; 6] = [
            &mut || cuMemAlloc_v2(&mut address.clone(), 4),
            &mut || cuEventCreate(&mut unused, 2),
            &mut || cuStreamSynchronize(other),
            &mut || cuStreamSynchronize(stream),
            &mut || cuEventSynchronize(event),
            &mut || cuMemFree_v2(address),
        ];
        for call in calls {
            assert_eq!(cuStreamBeginCapture_v2(stream, 1), codes::SUCCESS);
            assert_eq!(cuMemcpyHtoDAsync_v2(address, pinned, 4, stream), codes::SUCCESS);
            assert_eq!(call(), codes::ERROR_STREAM_CAPTURE_UNSUPPORTED);
            let after = cuMemcpyHtoDAsync_v2(address, pinned, 4, stream);
            assert_eq!(after, codes::ERROR_STREAM_CAPTURE_INVALIDATED);
            graph = std::ptr::without_provenance_mut(1);
            assert_eq!(cuStreamEndCapture(stream, &mut graph), codes::ERROR_STREAM_CAPTURE_INVALIDATED);
            assert!(graph.is_null());
        }
        // Another thread may do what it wants, but not end it.
        assert_eq!(cuStreamBeginCapture_v2(stream, 1), codes::SUCCESS);
        assert_eq!(cuEventRecord(event, stream), codes::SUCCESS);
        assert_eq!(cuStreamWaitEvent(other, event, 0), codes::SUCCESS);
        assert_eq!(cuStreamEndCapture(other, &mut graph), codes::ERROR_STREAM_CAPTURE_UNMATCHED);
        let at = stream.addr();
        let elsewhere = std::thread::spawn(move || {
            let (mut address, mut graph) = (0, null_mut());
            cuCtxSetCurrent(std::ptr::without_provenance_mut(1));
            let done = (cuMemAlloc_v2(&mut address, 4), cuMemFree_v2(address));
            (done, cuStreamEndCapture(std::ptr::without_provenance_mut(at), &mut graph))
        });
        let wrong = codes::ERROR_STREAM_CAPTURE_WRONG_THREAD;
        assert_eq!(elsewhere.join().unwrap(), ((codes::SUCCESS, codes::SUCCESS), wrong));
        assert_eq!(cuStreamEndCapture(stream, &mut graph), codes::SUCCESS);
        assert_eq!(cuStreamEndCapture(stream, &mut graph), codes::ERROR_INVALID_VALUE, "there is none");
        assert_eq!(cuEventSynchronize(event), codes::ERROR_CAPTURED_EVENT);
        assert_eq!(cuEventRecord(event, stream), codes::SUCCESS);
        assert_eq!(cuEventSynchronize(event), codes::SUCCESS);
    }
}

/// # Safety
/// A context is this thread's.
unsafe fn events() {
    let (mut stream, mut start, mut end, mut untimed) = (null_mut(), null_mut(), null_mut(), null_mut());
    let mut ms = -1.0;
    // SAFETY: pointers are to variables that live.
    unsafe {
        assert_eq!(cuStreamCreate(&mut stream, 1), codes::SUCCESS);
        for event in [&mut start, &mut end] {
            assert_eq!(cuEventCreate(event, 0), codes::SUCCESS);
        }
        assert_eq!(cuEventCreate(&mut untimed, 2), codes::SUCCESS);
        assert_eq!(cuEventSynchronize(start), codes::SUCCESS, "nothing is before it");
        assert_eq!(cuEventRecord(start, stream), codes::SUCCESS);
        assert_eq!(cuEventElapsedTime(&mut ms, start, end), codes::ERROR_INVALID_HANDLE, "not recorded");
        assert_eq!(cuEventRecord(end, stream), codes::SUCCESS);
        assert_eq!(cuEventRecord(untimed, stream), codes::SUCCESS);
        assert_eq!(cuEventElapsedTime(&mut ms, start, end), codes::ERROR_NOT_READY);
        assert_eq!(cuStreamSynchronize(stream), codes::SUCCESS);
        assert_eq!(cuEventElapsedTime(&mut ms, start, untimed), codes::ERROR_INVALID_HANDLE);
        assert_eq!((cuEventElapsedTime(&mut ms, start, end), ms >= 0.0), (codes::SUCCESS, true));
    }
}

/// # Safety
/// A context is this thread's.
unsafe fn launches() {
    let (mut state, mut code, mut bytes) = (null_mut(), null_mut(), 0);
    let (mut module, mut function, mut stream, mut address) = (null_mut(), null_mut(), null_mut(), 0u64);
    // SAFETY: pointers are to variables that live, with as many bytes as is said.
    unsafe {
        assert_eq!(cuLinkCreate_v2(0, null_mut(), null_mut(), &mut state), codes::SUCCESS);
        let text = PTX.to_bytes_with_nul();
        let (data, name) = (text.as_ptr().cast_mut().cast(), c"test".as_ptr());
        let without_zero = cuLinkAddData_v2(state, 1, data, text.len() - 1, name, 0, null_mut(), null_mut());
        assert_eq!(without_zero, codes::ERROR_INVALID_VALUE);
        let added = cuLinkAddData_v2(state, 1, data, text.len(), name, 0, null_mut(), null_mut());
        assert_eq!(added, codes::SUCCESS);
        assert_eq!(cuLinkComplete(state, &mut code, &mut bytes), codes::SUCCESS);
        assert_eq!(cuModuleLoadData(&mut module, code), codes::SUCCESS);
        assert_eq!(cuLinkDestroy(state), codes::SUCCESS);
        assert_eq!(cuModuleGetFunction(&mut function, module, c"store".as_ptr()), codes::SUCCESS);
        assert_eq!(cuStreamCreate(&mut stream, 1), codes::SUCCESS);
        assert_eq!(cuMemAlloc_v2(&mut address, 4), codes::SUCCESS);
        let mut launch = |[x, y, z]: [u32; 3], [a, b, c]: [u32; 3], shared| {
            let mut params = [(&raw mut address).cast::<c_void>()];
            cuLaunchKernel(function, x, y, z, a, b, c, shared, stream, params.as_mut_ptr(), null_mut())
        };
        let one = [1, 1, 1];
        for grid in [[0, 1, 1], [1 << 31, 1, 1], [1, 65_536, 1], [1, 1, 65_536]] {
            assert_eq!(launch(grid, one, 0), codes::ERROR_INVALID_VALUE, "{grid:?}");
        }
        for block in [[0, 1, 1], [1025, 1, 1], [1, 1, 65], [32, 33, 1]] {
            assert_eq!(launch(one, block, 0), codes::ERROR_INVALID_VALUE, "{block:?}");
        }
        assert_eq!(launch(one, one, (48 << 10) + 1), codes::ERROR_INVALID_VALUE, "it was not asked for");
        assert_eq!(launch(one, one, 0), codes::SUCCESS);
        assert_eq!(cuStreamSynchronize(stream), codes::SUCCESS);
        let nothing = cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, stream, null_mut(), null_mut());
        assert_eq!(nothing, codes::ERROR_INVALID_VALUE);
        let mut params = [(&raw mut address).cast::<c_void>()];
        let params = params.as_mut_ptr();
        let none = cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, null_mut(), params, null_mut());
        assert_eq!(none, codes::ERROR_INVALID_HANDLE, "the null stream");
    }
}

/// What is given back must have been there.
///
/// # Safety
/// A context is this thread's.
unsafe fn handles() {
    let (mut stream, mut event) = (null_mut(), null_mut());
    // SAFETY: pointers are to variables that live; the double follows no handle.
    unsafe {
        assert_eq!(cuMemFree_v2(12_345), codes::ERROR_INVALID_VALUE);
        assert_eq!(cuMemFreeHost(std::ptr::without_provenance_mut(12_345)), codes::ERROR_INVALID_VALUE);
        assert_eq!(cuStreamCreate(&mut stream, 1), codes::SUCCESS);
        assert_eq!(cuEventCreate(&mut event, 0), codes::SUCCESS);
        for destroyed in [codes::SUCCESS, codes::ERROR_INVALID_HANDLE] {
            assert_eq!(cuStreamDestroy_v2(stream), destroyed);
            assert_eq!(cuEventDestroy_v2(event), destroyed);
        }
    }
}
