//! Values of fixed width moved up to where those before them were left out.
//!
//! ```text
//!   values  a b c d e f g h     as many as fit a register, moved by one instruction
//!   mask    1 1 0 1 1 1 0 1     a byte of it says which way: 256 ways, in a table
//!   packed  a b d e f h . .     what is behind the last is written over by the next
//! ```
//!
//! Without AVX2, a loop without branches does the same.

/// What `make` makes of the values at which a bit of `mask` is set, `count` of them. Its words are of 64
/// values, the lowest bit first; what is behind the last value is not set.
pub(super) fn packed<S: Copy, T: Copy + Default>(
    values: &[S],
    mask: &[u64],
    count: usize,
    make: impl Fn(S) -> T,
) -> Vec<T> {
    // What is written past a word's last value is written over by the next.
    let mut packed = Vec::with_capacity(count + 64);
    for (values, mut mask) in values.chunks(64).zip(mask.iter().copied()) {
        let start = packed.len();
        packed.resize(start + 64, T::default());
        let mut next = 0;
        if let Some(slots) = packed.get_mut(start..).and_then(<[T]>::first_chunk_mut::<64>) {
            for value in values {
                // It is never more than 63; said so, nothing has to be checked.
                if let Some(slot) = slots.get_mut(next % 64) {
                    *slot = make(*value);
                }
                next += usize::from(mask & 1 == 1);
                mask >>= 1;
            }
        }
        packed.truncate(start + next);
    }
    packed
}

/// [`packed`], of four bytes each.
pub(super) fn packed_32(values: &[u32], mask: &[u64], count: usize) -> Vec<u32> {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V3::try_new() {
        return avx2::packed_32(simd, values, mask, count);
    }
    packed(values, mask, count, |it| it)
}

/// [`packed`], of eight bytes each.
pub(super) fn packed_64(values: &[u64], mask: &[u64], count: usize) -> Vec<u64> {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V3::try_new() {
        return avx2::packed_64(simd, values, mask, count);
    }
    packed(values, mask, count, |it| it)
}

/// [`packed`], each with 64 bits more.
pub(super) fn packed_wide(values: &[i64], mask: &[u64], count: usize) -> Vec<i128> {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V3::try_new() {
        return avx2::packed_wide(simd, values, mask, count);
    }
    packed(values, mask, count, i128::from)
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use pulp::cast;
    use pulp::x86::V3;

    /// Where the values of a register come from, in words of 32 bits, for each mask of eight.
    static WAYS_OF_8: [[u32; 8]; 256] = ways::<256>(1);
    /// The same for four of 64 bits.
    static WAYS_OF_4: [[u32; 8]; 16] = ways::<16>(2);

    #[inline(always)]
    fn way<const MASKS: usize>(ways: &[[u32; 8]; MASKS], mask: u64) -> [u32; 8] {
        // It is one of them; said so, nothing has to be checked.
        ways.get(mask as usize % MASKS).copied().unwrap_or_default()
    }

    #[expect(clippy::indexing_slicing, reason = "done by the compiler, which would say so")]
    const fn ways<const MASKS: usize>(words: usize) -> [[u32; 8]; MASKS] {
        let mut ways = [[0; 8]; MASKS];
        let mut mask = 0;
        while mask < MASKS {
            let (mut from, mut to) = (0, 0);
            while from < 8 {
                if mask >> (from / words) & 1 == 1 {
                    ways[mask][to] = from as u32;
                    to += 1;
                }
                from += 1;
            }
            mask += 1;
        }
        ways
    }

    /// Packs `N` values after `N` values.
    #[inline(always)]
    fn pack<S: Copy + Default, T: Copy + Default, const N: usize>(
        values: &[S],
        mask: &[u64],
        count: usize,
        pack: impl Fn(&[S; N], u64) -> [T; N],
    ) -> Vec<T> {
        let mut packed: Vec<T> = Vec::with_capacity(count + N);
        let mut put = |values: &[S; N], mask: u64| {
            let mask = mask & ((1 << N) - 1);
            let next = packed.len();
            // There always is; said so, nothing grows.
            if packed.capacity() - next >= N {
                packed.extend_from_slice(&pack(values, mask));
                packed.truncate(next + mask.count_ones() as usize);
            }
        };
        for (values, mut mask) in values.chunks(64).zip(mask.iter().copied()) {
            let (whole, rest) = values.as_chunks::<N>();
            for values in whole {
                put(values, mask);
                mask >>= N;
            }
            if !rest.is_empty() {
                let mut last = [S::default(); N];
                last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
                put(&last, mask);
            }
        }
        packed
    }

    /// Code that is compiled for AVX2.
    struct Wide<F>(F);

    impl<F: FnOnce() -> R, R> pulp::NullaryFnOnce for Wide<F> {
        type Output = R;

        #[inline(always)]
        fn call(self) -> R {
            (self.0)()
        }
    }

    /// [`pack`] by code of that kind.
    fn packed<S: Copy + Default, T: Copy + Default, const N: usize>(
        simd: V3,
        values: &[S],
        mask: &[u64],
        count: usize,
        one: impl Fn(&[S; N], u64) -> [T; N],
    ) -> Vec<T> {
        simd.vectorize(Wide(
            #[inline(always)]
            || pack(values, mask, count, one),
        ))
    }

    pub(super) fn packed_32(simd: V3, values: &[u32], mask: &[u64], count: usize) -> Vec<u32> {
        packed(
            simd,
            values,
            mask,
            count,
            #[inline(always)]
            |values: &[u32; 8], mask| {
                let way = cast(way(&WAYS_OF_8, mask));
                cast(simd.avx2._mm256_permutevar8x32_epi32(cast(*values), way))
            },
        )
    }

    pub(super) fn packed_64(simd: V3, values: &[u64], mask: &[u64], count: usize) -> Vec<u64> {
        packed(
            simd,
            values,
            mask,
            count,
            #[inline(always)]
            |values: &[u64; 4], mask| {
                let way = cast(way(&WAYS_OF_4, mask));
                cast(simd.avx2._mm256_permutevar8x32_epi32(cast(*values), way))
            },
        )
    }

    pub(super) fn packed_wide(simd: V3, values: &[i64], mask: &[u64], count: usize) -> Vec<i128> {
        packed(
            simd,
            values,
            mask,
            count,
            #[inline(always)]
            |values: &[i64; 4], mask| {
                let way = cast(way(&WAYS_OF_4, mask));
                let low = simd.avx2._mm256_permutevar8x32_epi32(cast(*values), way);
                let high = simd.avx2._mm256_cmpgt_epi64(simd.avx._mm256_setzero_si256(), low);
                // Of 0 and 2, and of 1 and 3.
                let even = simd.avx2._mm256_unpacklo_epi64(low, high);
                let odd = simd.avx2._mm256_unpackhi_epi64(low, high);
                let first = simd.avx2._mm256_permute2x128_si256::<0x20>(even, odd);
                let last = simd.avx2._mm256_permute2x128_si256::<0x31>(even, odd);
                cast([first, last])
            },
        )
    }
}
