//! Memory and table limits, set anew for each instance.
//!
//! The limit lowers the *maximum* of the memory that is created, so that `memory.grow` fails inside the guest, which
//! can cope with it. The compiled code is the same with and without a limit: one cached module serves all.

use std::cell::Cell;
use std::ptr::NonNull;

use wasmer::sys::vm::{
    MemoryError, MemoryStyle, TableStyle, VMConfig, VMMemory, VMMemoryDefinition, VMTable, VMTableDefinition,
};
use wasmer::sys::{BaseTunables, Tunables};
use wasmer::{MemoryType, Pages, TableType};

const PAGE_BYTES: u64 = 65536;
/// A table entry costs the host 8 bytes or more that no memory limit counts.
const MAX_TABLE_ELEMENTS: u32 = 10_000_000;

thread_local! {
    // Tunables belong to an engine, a limit to an instance: what creates the instance runs on this thread.
    static MEMORY_BYTES: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Run `body` (that creates an instance on this thread) under a memory limit.
pub fn limited<R>(memory_bytes: Option<u64>, body: impl FnOnce() -> R) -> R {
    MEMORY_BYTES.set(memory_bytes);
    let result = body();
    MEMORY_BYTES.set(None);
    result
}

pub struct Limiting {
    base: BaseTunables,
    config: VMConfig,
}

impl Limiting {
    pub fn new(stack_bytes: usize) -> Self {
        Self { base: BaseTunables::new(), config: VMConfig { wasm_stack_size: Some(stack_bytes) } }
    }
}

fn memory(ty: &MemoryType) -> Result<MemoryType, MemoryError> {
    let mut ty = *ty;
    if let Some(bytes) = MEMORY_BYTES.get() {
        let limit = Pages(u32::try_from(bytes / PAGE_BYTES).unwrap_or(65536).min(65536));
        if ty.minimum > limit {
            return Err(MemoryError::MinimumMemoryTooLarge { min_requested: ty.minimum, max_allowed: limit });
        }
        ty.maximum = Some(ty.maximum.map_or(limit, |maximum| maximum.min(limit)));
    }
    Ok(ty)
}

fn table(ty: &TableType) -> Result<TableType, String> {
    if ty.minimum > MAX_TABLE_ELEMENTS {
        return Err(format!("a table of {} elements; {MAX_TABLE_ELEMENTS} are allowed", ty.minimum));
    }
    let mut ty = ty.clone();
    ty.maximum = Some(ty.maximum.unwrap_or(MAX_TABLE_ELEMENTS).min(MAX_TABLE_ELEMENTS));
    Ok(ty)
}

impl Tunables for Limiting {
    fn memory_style(&self, memory: &MemoryType) -> MemoryStyle {
        self.base.memory_style(memory)
    }

    fn table_style(&self, table: &TableType) -> TableStyle {
        self.base.table_style(table)
    }

    fn create_host_memory(&self, ty: &MemoryType, style: &MemoryStyle) -> Result<VMMemory, MemoryError> {
        self.base.create_host_memory(&memory(ty)?, style)
    }

    unsafe fn create_vm_memory(
        &self,
        ty: &MemoryType,
        style: &MemoryStyle,
        at: NonNull<VMMemoryDefinition>,
    ) -> Result<VMMemory, MemoryError> {
        unsafe { self.base.create_vm_memory(&memory(ty)?, style, at) }
    }

    fn create_host_table(&self, ty: &TableType, style: &TableStyle) -> Result<VMTable, String> {
        self.base.create_host_table(&table(ty)?, style)
    }

    unsafe fn create_vm_table(
        &self,
        ty: &TableType,
        style: &TableStyle,
        at: NonNull<VMTableDefinition>,
    ) -> Result<VMTable, String> {
        unsafe { self.base.create_vm_table(&table(ty)?, style, at) }
    }

    fn vmconfig(&self) -> &VMConfig {
        &self.config
    }
}
