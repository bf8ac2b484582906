;; A WASI 0.2 command around a core module that was linked with wasip2.c. The module `$main` here is a stand-in with
;; the same imports and exports: wasmlab.modules.component puts the compiled one in its place.
;;
;; Two of the functions that `$main` imports need its memory, which exists only once `$main` does. So it is given calls
;; through a table (`$late`), and the table is filled when the memory is there (`$fill`).
(component
  (import "wasi:io/error@0.2.0" (instance $error (export "error" (type (sub resource)))))
  (alias export $error "error" (type $error-type))
  (import "wasi:io/streams@0.2.0" (instance $streams
    (export "output-stream" (type $stream (sub resource)))
    (alias outer 1 $error-type (type $reason))
    (type $failure (variant (case "last-operation-failed" (own $reason)) (case "closed")))
    (export "stream-error" (type $stream-error (eq $failure)))
    (export "[method]output-stream.blocking-write-and-flush"
      (func (param "self" (borrow $stream)) (param "contents" (list u8)) (result (result (error $stream-error)))))))
  (alias export $streams "output-stream" (type $output-stream))
  (import "wasi:cli/stdout@0.2.0" (instance $stdout
    (alias outer 1 $output-stream (type $stream))
    (export "get-stdout" (func (result (own $stream))))))
  (import "wasi:cli/stderr@0.2.0" (instance $stderr
    (alias outer 1 $output-stream (type $stream))
    (export "get-stderr" (func (result (own $stream))))))
  (import "wasi:cli/environment@0.2.0" (instance $environment
    (export "get-arguments" (func (result (list string))))))
  (import "wasi:cli/exit@0.2.0" (instance $exit
    (export "exit" (func (param "status" (result))))))

  (core module $main
    (import "wasi:cli/environment@0.2.0" "get-arguments" (func (param i32)))
    (import "wasi:cli/exit@0.2.0" "exit" (func (param i32)))
    (import "wasi:cli/stdout@0.2.0" "get-stdout" (func (result i32)))
    (import "wasi:cli/stderr@0.2.0" "get-stderr" (func (result i32)))
    (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush" (func (param i32 i32 i32 i32)))
    (memory (export "memory") 0)
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
    (func (export "wasi:cli/run@0.2.0#run") (result i32) unreachable))

  (core module $late
    (type $arguments (func (param i32)))
    (type $write (func (param i32 i32 i32 i32)))
    (table (export "table") 2 2 funcref)
    (func (export "get-arguments") (param i32)
      (call_indirect (type $arguments) (local.get 0) (i32.const 0)))
    (func (export "write") (param i32 i32 i32 i32)
      (call_indirect (type $write) (local.get 0) (local.get 1) (local.get 2) (local.get 3) (i32.const 1))))
  (core module $fill
    (import "" "table" (table 2 2 funcref))
    (import "" "get-arguments" (func $arguments (param i32)))
    (import "" "write" (func $write (param i32 i32 i32 i32)))
    (elem (i32.const 0) func $arguments $write))

  (core instance $late (instantiate $late))
  (core func $get-stdout (canon lower (func $stdout "get-stdout")))
  (core func $get-stderr (canon lower (func $stderr "get-stderr")))
  (core func $leave (canon lower (func $exit "exit")))
  (core instance $main (instantiate $main
    (with "wasi:cli/environment@0.2.0" (instance (export "get-arguments" (func $late "get-arguments"))))
    (with "wasi:cli/exit@0.2.0" (instance (export "exit" (func $leave))))
    (with "wasi:cli/stdout@0.2.0" (instance (export "get-stdout" (func $get-stdout))))
    (with "wasi:cli/stderr@0.2.0" (instance (export "get-stderr" (func $get-stderr))))
    (with "wasi:io/streams@0.2.0" (instance
      (export "[method]output-stream.blocking-write-and-flush" (func $late "write"))))))
  (core func $get-arguments (canon lower (func $environment "get-arguments")
    (memory (core memory $main "memory")) (realloc (core func $main "cabi_realloc"))))
  (core func $write (canon lower (func $streams "[method]output-stream.blocking-write-and-flush")
    (memory (core memory $main "memory"))))
  (core instance (instantiate $fill (with "" (instance
    (export "table" (table $late "table"))
    (export "get-arguments" (func $get-arguments))
    (export "write" (func $write))))))

  (func $run (result (result)) (canon lift (core func $main "wasi:cli/run@0.2.0#run")))
  (instance $command (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $command)))
