//! Fuel: a guest that was compiled with metering stops after so many operators.
//!
//! The counting itself is that of `wasmer-middlewares`. What is added: the start section counts as well. It runs inside
//! the making of an instance, before anybody can set how much fuel there is; so a metered module's start function is
//! exported instead, and called once the fuel is set.

use std::sync::Arc;

use wasmer::sys::{CompilerConfig, MiddlewareError, ModuleMiddleware};
use wasmer::wasmparser::Operator;
use wasmer::{AsStoreMut, ExportIndex, Function, Instance, LocalFunctionIndex};
use wasmer_middlewares::Metering;
use wasmer_middlewares::metering::{MeteringPoints, get_remaining_points, set_remaining_points};
use wasmer_types::ModuleInfo;

const REMAINING: &str = "wasmer_metering_remaining_points";
const START: &str = "wasmer_native_start";

/// What an operator costs: as in wasmtime, so that one limit means much the same on both.
fn cost(operator: &Operator) -> u64 {
    match operator {
        Operator::Nop
        | Operator::Drop
        | Operator::Block { .. }
        | Operator::Loop { .. }
        | Operator::Unreachable
        | Operator::Return
        | Operator::Else
        | Operator::End => 0,
        _ => 1,
    }
}

/// Compile one module, and only one, with metering.
pub fn meter(config: &mut dyn CompilerConfig) {
    config.push_middleware(Arc::new(Metering::new(u64::MAX, cost)));
    config.push_middleware(Arc::new(StartLater));
}

/// Whether the module was compiled with metering.
pub fn is_metered(module: &wasmer::Module) -> bool {
    module.exports().any(|export| export.name() == REMAINING)
}

#[derive(Debug)]
struct StartLater;

impl ModuleMiddleware for StartLater {
    fn generate_function_middleware<'a>(
        &self,
        _: LocalFunctionIndex,
    ) -> Box<dyn wasmer::sys::FunctionMiddleware<'a> + 'a> {
        Box::new(Unchanged)
    }

    fn transform_module_info(&self, module: &mut ModuleInfo) -> Result<(), MiddlewareError> {
        module.exports.shift_remove(START);
        if let Some(function) = module.start_function.take() {
            module.exports.insert(START.to_owned(), ExportIndex::Function(function));
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Unchanged;

impl wasmer::sys::FunctionMiddleware<'_> for Unchanged {}

/// The tank of a metered instance.
pub struct Fuel(Instance);

impl Fuel {
    /// Fill it; None if the module is not metered. Returns the start function too: it is to be called now.
    pub fn fill(store: &mut impl AsStoreMut, instance: &Instance, fuel: u64) -> (Self, Option<Function>) {
        set_remaining_points(store, instance, fuel);
        (Self(instance.clone()), instance.exports.get_function(START).cloned().ok())
    }

    /// What is left; None if the guest was stopped for want of more.
    pub fn left(&self, store: &mut impl AsStoreMut) -> Option<u64> {
        match get_remaining_points(store, &self.0) {
            MeteringPoints::Remaining(points) => Some(points),
            MeteringPoints::Exhausted => None,
        }
    }
}
