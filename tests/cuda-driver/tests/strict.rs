//! The double called as the runtime calls it: what it does late, and what it does not forgive.

mod calls;

use std::ffi::c_void;
use std::ptr::null_mut;

use nnc_cuda_driver_double::codes;
use nnc_cuda_driver_double::config::Config;

use calls::*;

/// One process is one world, so this is one test.
#[test]
fn work_is_done_when_it_is_waited_for_and_not_otherwise() {
    let (mut context, mut stream, mut pinned, mut graph) = (null_mut(), null_mut(), null_mut(), null_mut());
    let mut address = 0;
    let mut read = [0u8; 4];
    // SAFETY: pointers are to variables that live, with as many bytes as is said.
    unsafe {
        assert_eq!(cuDevicePrimaryCtxRetain(&mut context, 0), codes::ERROR_NOT_INITIALIZED);
        assert_eq!(cuInit(1), codes::ERROR_INVALID_VALUE);
        assert_eq!(cuInit(0), codes::SUCCESS);
        assert_eq!(cuMemAlloc_v2(&mut address, 4), codes::ERROR_INVALID_CONTEXT, "no context yet");
        assert_eq!(cuDevicePrimaryCtxRetain(&mut context, 0), codes::SUCCESS);
        assert_eq!(cuMemAlloc_v2(&mut address, 4), codes::ERROR_INVALID_CONTEXT, "it is not this thread's");
        assert_eq!(cuCtxSetCurrent(context), codes::SUCCESS);
        assert_eq!(cuMemAlloc_v2(&mut address, usize::MAX / 2), codes::ERROR_OUT_OF_MEMORY);
        assert_eq!(cuMemAlloc_v2(&mut address, 4), codes::SUCCESS);
        assert_eq!(cuStreamCreate(&mut stream, 1), codes::SUCCESS);
        assert_eq!(cuMemHostAlloc(&mut pinned, 8, 0), codes::SUCCESS);
        let from = pinned.cast::<u8>();
        from.write_bytes(1, 4);
        let own = [7u8; 4];
        let beside = cuMemcpyHtoDAsync_v2(address, own.as_ptr().cast(), 4, stream);
        assert_eq!(beside, codes::ERROR_INVALID_VALUE, "memory that is not page-locked");
        assert_eq!(cuMemcpyHtoDAsync_v2(address, pinned, 4, stream), codes::SUCCESS);
        let early = cuMemcpyDtoH_v2(read.as_mut_ptr().cast(), address, 4);
        assert_eq!(early, codes::ERROR_INVALID_VALUE, "nothing was written yet");
        from.write_bytes(2, 4);
        let changed = cuStreamSynchronize(stream);
        assert_eq!(changed, codes::ERROR_INVALID_VALUE, "overwritten before it was copied");
        assert_eq!(cuMemcpyHtoDAsync_v2(address, pinned, 4, stream), codes::SUCCESS);
        assert_eq!(cuStreamSynchronize(stream), codes::SUCCESS);
        assert_eq!(cuMemcpyDtoH_v2(read.as_mut_ptr().cast(), address, 4), codes::SUCCESS);
        assert_eq!(read, [2; 4]);
        // What is read before it was waited for is no number.
        assert_eq!(cuMemcpyDtoHAsync_v2(pinned, address, 4, stream), codes::SUCCESS);
        assert!(pinned.cast::<f32>().read().is_nan());
        assert_eq!(cuStreamSynchronize(stream), codes::SUCCESS);
        assert_eq!(pinned.cast::<[u8; 4]>().read(), [2; 4]);
        // Nobody waits for ever more work.
        let copies = (0..1 << 16).map(|_| cuMemcpyHtoDAsync_v2(address, pinned, 4, stream));
        let stopped = copies.filter(|&code| code == codes::ERROR_LAUNCH_OUT_OF_RESOURCES).count();
        assert!(stopped > 0, "a test whose program does not wait must end");
        assert_eq!(cuStreamSynchronize(stream), codes::SUCCESS);
        assert_eq!(cuStreamBeginCapture_v2(stream, 0), codes::SUCCESS);
        assert_eq!(cuMemcpyHtoDAsync_v2(address, pinned, 4, stream), codes::SUCCESS);
        assert_eq!(cuStreamEndCapture(stream, &mut graph), codes::SUCCESS);
        assert_eq!(cuGraphLaunch(graph, stream), codes::ERROR_INVALID_HANDLE, "it has no instance");
        capture_of_two_streams(stream, pinned, address);
        // Memory that work is to use is gone.
        assert_eq!(cuMemcpyHtoDAsync_v2(address, pinned, 4, stream), codes::SUCCESS);
        assert_eq!(cuMemFree_v2(address), codes::SUCCESS);
        assert_eq!(cuStreamSynchronize(stream), codes::ERROR_INVALID_VALUE);
    }
}

/// Copies of `[2; 4]` and `[3; 4]` to the same place: in order only where one stream waits for the other.
///
/// # Safety
/// `pinned` has eight bytes, `address` has four.
unsafe fn capture_of_two_streams(stream: *mut c_void, pinned: *mut c_void, address: u64) {
    let (mut other, mut begin, mut end) = (null_mut(), null_mut(), null_mut());
    let (mut graph, mut instance, mut read) = (null_mut(), null_mut(), [0u8; 4]);
    // SAFETY: pointers are to variables that live; the caller vouches for the rest.
    unsafe {
        pinned.cast::<u8>().write_bytes(2, 4);
        pinned.cast::<u8>().add(4).write_bytes(3, 4);
        assert_eq!(cuStreamCreate(&mut other, 1), codes::SUCCESS);
        assert_eq!(cuEventCreate(&mut begin, 0), codes::SUCCESS);
        assert_eq!(cuEventCreate(&mut end, 0), codes::SUCCESS);
        for (joined, in_order) in [(false, false), (true, false), (true, true)] {
            assert_eq!(cuStreamBeginCapture_v2(stream, 0), codes::SUCCESS);
            assert_eq!(cuEventRecord(begin, stream), codes::SUCCESS);
            if !in_order {
                assert_eq!(cuStreamWaitEvent(other, begin, 0), codes::SUCCESS);
            }
            assert_eq!(cuMemcpyHtoDAsync_v2(address, pinned, 4, stream), codes::SUCCESS);
            if in_order {
                assert_eq!(cuEventRecord(begin, stream), codes::SUCCESS);
                assert_eq!(cuStreamWaitEvent(other, begin, 0), codes::SUCCESS);
            }
            assert_eq!(cuMemcpyHtoDAsync_v2(address, pinned.byte_add(4), 4, other), codes::SUCCESS);
            if joined {
                assert_eq!(cuEventRecord(end, other), codes::SUCCESS);
                assert_eq!(cuStreamWaitEvent(stream, end, 0), codes::SUCCESS);
            }
            let ended = cuStreamEndCapture(stream, &mut graph);
            if !joined {
                assert_eq!(ended, codes::ERROR_STREAM_CAPTURE_UNJOINED);
                continue;
            }
            assert_eq!(ended, codes::SUCCESS);
            assert_eq!(cuGraphInstantiateWithFlags(&mut instance, graph, 0), codes::SUCCESS);
            assert_eq!(cuGraphLaunch(instance, stream), codes::SUCCESS);
            assert_eq!(cuStreamSynchronize(stream), codes::SUCCESS);
            assert_eq!(cuMemcpyDtoH_v2(read.as_mut_ptr().cast(), address, 4), codes::SUCCESS);
            assert_eq!(read, if in_order { [3; 4] } else { [2; 4] });
        }
        // An event that is in no capture any more.
        assert_eq!(cuStreamBeginCapture_v2(stream, 0), codes::SUCCESS);
        assert_eq!(cuStreamWaitEvent(stream, end, 0), codes::ERROR_STREAM_CAPTURE_ISOLATION);
        assert_eq!(cuStreamEndCapture(stream, &mut graph), codes::SUCCESS);
    }
}

#[test]
fn settings() {
    let config = Config::parse("devices=2,capability=8.6,memory=100,driver=12080,fail=conv,after=3,stub=1");
    assert_eq!((config.devices, config.capability, config.memory), (2, (8, 6), 100));
    assert_eq!((config.driver, config.fail.as_deref(), config.after), (12_080, Some("conv"), 3));
    assert!(config.stub && !Config::parse("").stub);
    assert_eq!(Config::parse("").capability, (9, 0));
    assert!(std::panic::catch_unwind(|| Config::parse("device=1")).is_err());
}
