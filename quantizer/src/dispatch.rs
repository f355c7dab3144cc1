//! Which vectors loops use.

/// Runs an expression with AVX2 if the processor has it, else with SSE2, which all have. Each level that is left out would be
/// compiled once more for every rule.
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
/// Runs an expression with NEON, or without vectors.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) use fearless_simd::dispatch;
