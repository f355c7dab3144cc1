//! Which vectors loops use.

/// Runs an expression with AVX2 if the processor has it, else with SSE2, which all have. Every further level would compile each rule
/// once more; none has been shown to make a conversion faster.
#[cfg(target_arch = "x86_64")]
macro_rules! dispatch {
    ($level:expr, $simd:ident => $result:expr) => {{
        use fearless_simd::Simd as _;
        if let Some($simd) = $level.as_avx2() {
            $simd.vectorize(
                #[inline(always)]
                || $result,
            )
        } else if let Some($simd) = $level.as_sse2() {
            $simd.vectorize(
                #[inline(always)]
                || $result,
            )
        } else {
            unreachable!("x86-64 has SSE2")
        }
    }};
}

#[cfg(target_arch = "x86_64")]
pub(crate) use dispatch;
/// Runs an expression with what the processor has, which is NEON on Apple silicon.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) use fearless_simd::dispatch;
