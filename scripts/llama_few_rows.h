// What files of medmind's in llama.cpp share that multiply weights by a few tokens at once (see llama_few_rows.cpp).

#pragma once

#define GGML_COMMON_DECL_CPP
#include "ggml-common.h"

#include "ggml-backend.h"
#include "ggml-cpu-impl.h"
#include "ggml-impl.h"
#include "simd-mappings.h"

#include <cstdint>
#include <cstring>
#include <immintrin.h>

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define MEDMIND_FEW_ROWS

namespace medmind {

constexpr int MOST = 8; // tokens whose sums are held in registers

// Of `count` tokens by rows of weights: steps from one to the next in blocks, in `to` in numbers.
struct Product {
    const void * weights;
    int64_t step, blocks; // those of a row
    const void * tokens;
    int64_t token_step;
    int count;
    float * to;
    int64_t to_step;
};

// The rows from `first` on, before `last`; of q4_K eight of them at once, as llama.cpp repacks them.
void multiply_q8_0(const Product & product, int64_t first, int64_t last);
void multiply_q6_k(const Product & product, int64_t first, int64_t last);
void multiply_q4_k(const Product & product, int64_t first, int64_t last);

// As hsum_float_8 of quants.c.
inline float total(__m256 value) {
    __m128 half = _mm_add_ps(_mm256_extractf128_ps(value, 1), _mm256_castps256_ps128(value));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

// 64 bytes: of two rows 32 each, or of eight rows 8 each. Weights have no sign here and are below 64, so that four
// products fit into 16 bits; `Dots` are such sums, which `scaled` multiplies by 16 bits and adds up in 32.
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VNNI__)

struct Wide {
    __m512i all;

    static Wide zero() { return { _mm512_setzero_si512() }; }
    static Wide of(const void * at) { return { _mm512_loadu_si512(at) }; }
    static Wide of(__m256i one, __m256i other) { return { _mm512_inserti64x4(_mm512_castsi256_si512(one), other, 1) }; }
    static Wide eight_times(const void * at) { // 8 bytes
        int64_t bytes;
        memcpy(&bytes, at, sizeof bytes);
        return { _mm512_set1_epi64(bytes) };
    }
    static Wide twice(const void * at) { return { _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *) at)) }; }

    Wide low_halves() const { return { _mm512_and_si512(all, _mm512_set1_epi8(15)) }; } // of each byte
    Wide high_halves() const { return { _mm512_and_si512(_mm512_srli_epi16(all, 4), _mm512_set1_epi8(15)) }; }

    // Two bits of each byte, the lowest being the 0th, as its bits 4 and 5.
    template <int AT> Wide fours() const {
        const __m512i bits = _mm512_and_si512(all, _mm512_set1_epi8((char) (3 << 2 * AT)));
        if constexpr (AT < 2) {
            return { _mm512_slli_epi16(bits, 4 - 2 * AT) };
        } else {
            return { _mm512_srli_epi16(bits, 2 * AT - 4) };
        }
    }
    Wide operator+(Wide other) const { return { _mm512_add_epi32(all, other.all) }; }
    Wide operator|(Wide other) const { return { _mm512_or_si512(all, other.all) }; }

    Wide dots(Wide weights, Wide tokens) const { return { _mm512_dpbusd_epi32(all, weights.all, tokens.all) }; }
    Wide scaled(Wide dots, Wide scales) const { return { _mm512_dpwssd_epi32(all, dots.all, scales.all) }; }
    Wide pairs(Wide some, Wide others) const { return { _mm512_dpwssd_epi32(all, some.all, others.all) }; }

    // `dots` lie in 32 bits, whose upper half counts for nothing.
    static Wide scales_of_eight(uint64_t scales) { // a byte for each row
        const __m512i places = _mm512_set_epi64(
            0x0f0f0f070f0f0f07, 0x0f0f0f060f0f0f06, 0x0f0f0f050f0f0f05, 0x0f0f0f040f0f0f04, 0x0f0f0f030f0f0f03,
            0x0f0f0f020f0f0f02, 0x0f0f0f010f0f0f01, 0x0f0f0f000f0f0f00);
        return { _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_cvtsi64_si128((long long) scales)), places) };
    }
    // The scales of two rows, a signed byte for each 16 weights, of those 32 weights that are the `group`th.
    static Wide scales_of_two(__m128i one, __m128i other, int group) {
        const __m128i places = _mm_set1_epi16((short) (2 * group * 0x101));
        const __m128i second = _mm_set_epi32(0x01010101, 0, 0x01010101, 0);
        const __m128i wanted = _mm_add_epi8(places, second);
        const __m128i both = _mm_unpacklo_epi64(_mm_shuffle_epi8(one, wanted), _mm_shuffle_epi8(other, wanted));
        return { _mm512_and_si512(_mm512_cvtepi8_epi32(both), _mm512_set1_epi32(0xffff)) };
    }
    // Of eight rows with two 32-bit sums each, the sum of both.
    __m256i sums_of_eight() const { return _mm512_cvtepi64_epi32(_mm512_add_epi32(all, _mm512_srli_epi64(all, 32))); }
    Wide less_32_times(Wide other) const { return { _mm512_sub_epi32(all, _mm512_slli_epi32(other.all, 5)) }; }
};

// Eight 32-bit floats of each of two rows.
struct Floats {
    __m512 all;

    static Floats zero() { return { _mm512_setzero_ps() }; }
    static Floats of(float one, float other) {
        return { _mm512_insertf32x8(_mm512_set1_ps(one), _mm256_set1_ps(other), 1) };
    }
    Floats add(Wide sums, Floats scales, float scale) const {
        const __m512 product = _mm512_mul_ps(scales.all, _mm512_set1_ps(scale));
        return { _mm512_fmadd_ps(product, _mm512_cvtepi32_ps(sums.all), all) };
    }
    __m256 one() const { return _mm512_castps512_ps256(all); }
    __m256 other() const { return _mm512_extractf32x8_ps(all, 1); }
};

#else

struct Wide {
    __m256i low, high;

    static Wide zero() { return { _mm256_setzero_si256(), _mm256_setzero_si256() }; }
    static Wide of(const void * at) {
        return { _mm256_loadu_si256((const __m256i *) at), _mm256_loadu_si256((const __m256i *) at + 1) };
    }
    static Wide of(__m256i one, __m256i other) { return { one, other }; }
    static Wide eight_times(const void * at) { // 8 bytes
        int64_t bytes;
        memcpy(&bytes, at, sizeof bytes);
        const __m256i half = _mm256_set1_epi64x(bytes);
        return { half, half };
    }
    static Wide twice(const void * at) {
        const __m256i half = _mm256_loadu_si256((const __m256i *) at);
        return { half, half };
    }

    Wide low_halves() const { // of each byte
        const __m256i mask = _mm256_set1_epi8(15);
        return { _mm256_and_si256(low, mask), _mm256_and_si256(high, mask) };
    }
    Wide high_halves() const {
        const __m256i mask = _mm256_set1_epi8(15);
        return { _mm256_and_si256(_mm256_srli_epi16(low, 4), mask), _mm256_and_si256(_mm256_srli_epi16(high, 4), mask) };
    }

    // Two bits of each byte, the lowest being the 0th, as its bits 4 and 5.
    template <int AT> Wide fours() const {
        const __m256i mask = _mm256_set1_epi8((char) (3 << 2 * AT));
        const __m256i one = _mm256_and_si256(low, mask), other = _mm256_and_si256(high, mask);
        if constexpr (AT < 2) {
            return { _mm256_slli_epi16(one, 4 - 2 * AT), _mm256_slli_epi16(other, 4 - 2 * AT) };
        } else {
            return { _mm256_srli_epi16(one, 2 * AT - 4), _mm256_srli_epi16(other, 2 * AT - 4) };
        }
    }
    Wide operator+(Wide other) const { return { _mm256_add_epi32(low, other.low), _mm256_add_epi32(high, other.high) }; }
    Wide operator|(Wide other) const { return { _mm256_or_si256(low, other.low), _mm256_or_si256(high, other.high) }; }

    Wide dots(Wide weights, Wide tokens) const {
        return { _mm256_add_epi16(low, _mm256_maddubs_epi16(weights.low, tokens.low)),
                 _mm256_add_epi16(high, _mm256_maddubs_epi16(weights.high, tokens.high)) };
    }
    Wide scaled(Wide dots, Wide scales) const { return pairs(dots, scales); }
    Wide pairs(Wide some, Wide others) const {
        return { _mm256_add_epi32(low, _mm256_madd_epi16(some.low, others.low)),
                 _mm256_add_epi32(high, _mm256_madd_epi16(some.high, others.high)) };
    }

    // `dots` lie in 16 bits.
    static Wide scales_of_eight(uint64_t scales) { // a byte for each row
        const __m256i all = _mm256_set1_epi64x((long long) scales);
        const __m256i places = _mm256_set_epi64x(
            (long long) 0x8003800380038003, (long long) 0x8002800280028002, (long long) 0x8001800180018001,
            (long long) 0x8000800080008000);
        return { _mm256_shuffle_epi8(all, places), _mm256_shuffle_epi8(all, _mm256_add_epi8(places, _mm256_set1_epi16(4))) };
    }
    // The scales of two rows, a signed byte for each 16 weights, of those 32 weights that are the `group`th.
    static Wide scales_of_two(__m128i one, __m128i other, int group) {
        const __m128i places = _mm_set1_epi16((short) (2 * group * 0x101));
        const __m128i wanted = _mm_add_epi8(places, _mm_set_epi32(0x01010101, 0x01010101, 0, 0));
        return { _mm256_cvtepi8_epi16(_mm_shuffle_epi8(one, wanted)), _mm256_cvtepi8_epi16(_mm_shuffle_epi8(other, wanted)) };
    }
    // Of eight rows with two 32-bit sums each, the sum of both.
    __m256i sums_of_eight() const { return _mm256_permute4x64_epi64(_mm256_hadd_epi32(low, high), 0xd8); }
    Wide less_32_times(Wide other) const {
        return { _mm256_sub_epi32(low, _mm256_slli_epi32(other.low, 5)),
                 _mm256_sub_epi32(high, _mm256_slli_epi32(other.high, 5)) };
    }
};

// Eight 32-bit floats of each of two rows.
struct Floats {
    __m256 low, high;

    static Floats zero() { return { _mm256_setzero_ps(), _mm256_setzero_ps() }; }
    static Floats of(float one, float other) { return { _mm256_set1_ps(one), _mm256_set1_ps(other) }; }
    Floats add(Wide sums, Floats scales, float scale) const {
        const __m256 each = _mm256_set1_ps(scale);
        return { _mm256_fmadd_ps(_mm256_mul_ps(scales.low, each), _mm256_cvtepi32_ps(sums.low), low),
                 _mm256_fmadd_ps(_mm256_mul_ps(scales.high, each), _mm256_cvtepi32_ps(sums.high), high) };
    }
    __m256 one() const { return low; }
    __m256 other() const { return high; }
};

#endif

} // namespace medmind

#endif
