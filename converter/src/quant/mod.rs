//! SHIM until branch quant lands.
#![allow(missing_docs)]
use half::{bf16, f16};
pub const BLOCK: usize = 32;
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Int4Rule {
    Lattice,
    Q4_0,
    Absmax,
}
impl Int4Rule {
    pub fn name(self) -> &'static str {
        match self {
            Self::Lattice => "lattice",
            Self::Q4_0 => "q4_0",
            Self::Absmax => "absmax",
        }
    }
}
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum QuantizeError {
    #[error("element {element} is NaN or infinite")]
    NotFinite { element: usize },
    #[error("element {element} does not fit f16")]
    Overflow { element: usize },
}
impl QuantizeError {
    pub fn shifted(self, by: usize) -> Self {
        match self {
            Self::NotFinite { element } => Self::NotFinite { element: element + by },
            Self::Overflow { element } => Self::Overflow { element: element + by },
        }
    }
}
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    pub blocks: u64,
    pub blocks_exact: u64,
    pub weights: u64,
    pub weights_exact: u64,
    pub squared_error: f64,
    pub squared_weights: f64,
    pub subnormal_scales: u64,
    pub negative_scales: u64,
}
impl Statistics {
    pub fn merge(&mut self, o: &Self) {
        self.blocks += o.blocks;
        self.blocks_exact += o.blocks_exact;
        self.weights += o.weights;
        self.weights_exact += o.weights_exact;
        self.squared_error += o.squared_error;
        self.squared_weights += o.squared_weights;
        self.subnormal_scales += o.subnormal_scales;
        self.negative_scales += o.negative_scales;
    }
    pub fn relative_error(&self) -> f64 {
        if self.squared_weights == 0.0 { 0.0 } else { (self.squared_error / self.squared_weights).sqrt() }
    }
    fn add(&mut self, w: &[bf16], q: &[i32; 32], s: f16) {
        let mut exact = 0;
        for (w, q) in w.iter().zip(q) {
            let r = *q as f32 * s.to_f32();
            let e = f64::from(r - w.to_f32());
            self.squared_error += e * e;
            self.squared_weights += f64::from(w.to_f32()).powi(2);
            if bf16::from_f32(r) == *w {
                exact += 1;
            }
        }
        self.blocks += 1;
        self.weights += 32;
        self.weights_exact += exact;
        self.blocks_exact += u64::from(exact == 32);
        self.negative_scales += u64::from(s < f16::ZERO);
    }
}
fn check(w: &[bf16]) -> Result<(), QuantizeError> {
    match w.iter().position(|x| !x.is_finite()) {
        Some(element) => Err(QuantizeError::NotFinite { element }),
        None => Ok(()),
    }
}
fn absmax(w: &[bf16], half_range: f32, lo: f32, hi: f32) -> ([i32; 32], f16) {
    let h: Vec<f32> = w.iter().map(|x| f16::from_f32(x.to_f32()).to_f32()).collect();
    let m = h.iter().fold(0.0_f32, |a, x| a.max(x.abs()));
    let s = f16::from_f32((m / half_range).max(2.0_f32.powi(-23)));
    let mut q = [0; 32];
    for (q, x) in q.iter_mut().zip(&h) {
        *q = (x / s.to_f32()).round_ties_even().clamp(lo, hi) as i32;
    }
    (q, s)
}
fn lattice(w: &[bf16]) -> Option<([i32; 32], f16)> {
    let m = w.iter().copied().max_by(|a, b| a.to_f32().abs().total_cmp(&b.to_f32().abs())).unwrap();
    if m.to_f32() == 0.0 {
        return Some(([0; 32], f16::ZERO));
    }
    for k in [7.0_f32, -8.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0] {
        for sgn in [1.0_f32, -1.0] {
            let s0 = m.to_f32().abs() / k.abs() * sgn;
            let b = bf16::from_f32(s0);
            for d in [0_i32, 1, -1, 2, -2] {
                let s = f16::from_f32(bf16::from_bits((i32::from(b.to_bits()) + d) as u16).to_f32());
                let sf = s.to_f32();
                if sf == 0.0 || !sf.is_finite() {
                    continue;
                }
                let mut q = [0; 32];
                let mut ok = true;
                for (q, x) in q.iter_mut().zip(w) {
                    let v = (x.to_f32() / sf).round_ties_even();
                    if !(-8.0..=7.0).contains(&v) || bf16::from_f32(v * sf) != *x {
                        ok = false;
                        break;
                    }
                    *q = v as i32;
                }
                if ok {
                    return Some((q, s));
                }
            }
        }
    }
    None
}
pub fn is_on_lattice(block: &[bf16; BLOCK]) -> bool {
    lattice(block).is_some()
}
fn q4_0(w: &[bf16]) -> ([i32; 32], f16) {
    let mut m = 0.0_f32;
    for x in w {
        if x.to_f32().abs() > m.abs() {
            m = x.to_f32();
        }
    }
    let d = m / -8.0;
    let id = if d == 0.0 { 0.0 } else { 1.0 / d };
    let mut q = [0; 32];
    for (q, x) in q.iter_mut().zip(w) {
        *q = (x.to_f32() * id + 8.5).trunc().clamp(0.0, 15.0) as i32 - 8;
    }
    (q, f16::from_f32(d))
}
pub fn quantize_int4_serial(
    rule: Int4Rule,
    w: &[bf16],
    codes: &mut [u8],
    scales: &mut [f16],
) -> Result<Statistics, QuantizeError> {
    check(w)?;
    let mut st = Statistics::default();
    for ((w, c), s) in w.chunks_exact(32).zip(codes.chunks_exact_mut(16)).zip(scales) {
        let (q, sc) = match rule {
            Int4Rule::Q4_0 => q4_0(w),
            Int4Rule::Absmax => absmax(w, 7.5, -8.0, 7.0),
            Int4Rule::Lattice => lattice(w).unwrap_or_else(|| absmax(w, 7.5, -8.0, 7.0)),
        };
        for (c, p) in c.iter_mut().zip(q.chunks(2)) {
            *c = (p[0] & 15) as u8 | ((p[1] & 15) as u8) << 4;
        }
        *s = sc;
        st.add(w, &q, sc);
    }
    Ok(st)
}
pub fn quantize_int8_serial(
    w: &[bf16],
    codes: &mut [i8],
    scales: &mut [f16],
) -> Result<Statistics, QuantizeError> {
    check(w)?;
    let mut st = Statistics::default();
    for ((w, c), s) in w.chunks_exact(32).zip(codes.chunks_exact_mut(32)).zip(scales) {
        let (q, sc) = absmax(w, 127.5, -128.0, 127.0);
        for (c, q) in c.iter_mut().zip(q) {
            *c = q as i8;
        }
        *s = sc;
        st.add(w, &q, sc);
    }
    Ok(st)
}
pub fn to_f16_serial(w: &[bf16], out: &mut [f16]) -> Result<(), QuantizeError> {
    check(w)?;
    for (i, (w, o)) in w.iter().zip(out).enumerate() {
        *o = f16::from_f32(w.to_f32());
        if o.is_infinite() {
            return Err(QuantizeError::Overflow { element: i });
        }
    }
    Ok(())
}
