//! The double's functions, as `cuda.h` declares them.

// Every test has its own of these.
#![allow(dead_code, non_snake_case)]

use std::ffi::{c_char, c_void};

// The library is linked for them.
use nnc_cuda_driver_double as _;

// SAFETY of the declarations: these are the double's own functions, with its signatures.
unsafe extern "C" {
    pub fn cuInit(flags: u32) -> i32;
    pub fn cuDevicePrimaryCtxRetain(context: *mut *mut c_void, device: i32) -> i32;
    pub fn cuDevicePrimaryCtxRelease_v2(device: i32) -> i32;
    pub fn cuCtxSetCurrent(context: *mut c_void) -> i32;
    pub fn cuMemAlloc_v2(address: *mut u64, bytes: usize) -> i32;
    pub fn cuMemFree_v2(address: u64) -> i32;
    pub fn cuMemFreeHost(start: *mut c_void) -> i32;
    pub fn cuMemHostAlloc(start: *mut *mut c_void, bytes: usize, flags: u32) -> i32;
    pub fn cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, bytes: usize, stream: *mut c_void) -> i32;
    pub fn cuMemcpyDtoH_v2(to: *mut c_void, from: u64, bytes: usize) -> i32;
    pub fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, bytes: usize, stream: *mut c_void) -> i32;
    pub fn cuStreamCreate(stream: *mut *mut c_void, flags: u32) -> i32;
    pub fn cuStreamDestroy_v2(stream: *mut c_void) -> i32;
    pub fn cuStreamSynchronize(stream: *mut c_void) -> i32;
    pub fn cuStreamBeginCapture_v2(stream: *mut c_void, mode: u32) -> i32;
    pub fn cuStreamEndCapture(stream: *mut c_void, graph: *mut *mut c_void) -> i32;
    pub fn cuStreamWaitEvent(stream: *mut c_void, event: *mut c_void, flags: u32) -> i32;
    pub fn cuEventCreate(event: *mut *mut c_void, flags: u32) -> i32;
    pub fn cuEventDestroy_v2(event: *mut c_void) -> i32;
    pub fn cuEventRecord(event: *mut c_void, stream: *mut c_void) -> i32;
    pub fn cuEventSynchronize(event: *mut c_void) -> i32;
    pub fn cuEventElapsedTime(ms: *mut f32, start: *mut c_void, end: *mut c_void) -> i32;
    pub fn cuGraphInstantiateWithFlags(instance: *mut *mut c_void, graph: *mut c_void, flags: u64) -> i32;
    pub fn cuGraphLaunch(graph: *mut c_void, stream: *mut c_void) -> i32;
    pub fn cuLinkCreate_v2(
        n: u32,
        options: *mut u32,
        values: *mut *mut c_void,
        state: *mut *mut c_void,
    ) -> i32;
    pub fn cuLinkAddData_v2(
        state: *mut c_void,
        kind: u32,
        data: *mut c_void,
        bytes: usize,
        name: *const c_char,
        n: u32,
        options: *mut u32,
        values: *mut *mut c_void,
    ) -> i32;
    pub fn cuLinkComplete(state: *mut c_void, code: *mut *mut c_void, bytes: *mut usize) -> i32;
    pub fn cuLinkDestroy(state: *mut c_void) -> i32;
    pub fn cuModuleLoadData(module: *mut *mut c_void, image: *const c_void) -> i32;
    pub fn cuModuleGetFunction(function: *mut *mut c_void, module: *mut c_void, name: *const c_char) -> i32;
    pub fn cuLaunchKernel(
        function: *mut c_void,
        grid_x: u32,
        grid_y: u32,
        grid_z: u32,
        block_x: u32,
        block_y: u32,
        block_z: u32,
        shared: u32,
        stream: *mut c_void,
        params: *mut *mut c_void,
        extra: *mut *mut c_void,
    ) -> i32;
}
