// What files of medmind's in llama.cpp share that multiply weights by a few tokens at once (see llama_few_rows.cpp).

#pragma once

#define GGML_COMMON_DECL_CPP
#include "ggml-common.h"

#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml-cpu-impl.h"
#include "ggml-impl.h"
#include "simd-mappings.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define MEDMIND_FEW_ROWS
#include <immintrin.h>

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VNNI__)
#define MEDMIND_AVX512 // registers of 64 bytes; else of 32
#endif

namespace medmind {

constexpr int MOST_TOKENS = 8; // whose sums are held in registers

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

// Rows of weights as threads take them, some at a time.
class Parts {
public:
    // `by` rows are computed at once. Unless `counting`, nobody counts which are taken, and each thread has its share.
    Parts(const struct ggml_compute_params * params, int64_t rows, int64_t by, bool counting) :
        params(params), rows(rows), units((rows + by - 1) / by), by(by),
        counting(counting && params->nth > 1 && !ggml_is_numa()),
        count(this->counting ? std::min<int64_t>(units, 4 * params->nth) : params->nth), part(params->ith) {}

    bool next(int64_t & first, int64_t & last) {
        if (part >= count) {
            return false;
        }
        first = part * units / count * by;
        last = std::min(rows, (part + 1) * units / count * by);
        part = counting ? ggml_threadpool_chunk_add(params->threadpool, 1) : count;
        return true;
    }

private:
    const struct ggml_compute_params * params;
    int64_t rows, units, by;
    bool counting;
    int64_t count, part;
};

void multiply_q8_0(const Product & product, Parts parts);
void multiply_q6_k(const Product & product, Parts parts);
void multiply_q4_k(const Product & product, Parts parts); // eight rows lie side by side, as llama.cpp repacks them

// Begin to fetch what is needed soon. (Of a function that does nothing but this GCC would leave out the calls.)
#ifdef _MSC_VER
#define MEDMIND_INLINE __forceinline
#else
#define MEDMIND_INLINE __attribute__((always_inline)) inline
#endif
MEDMIND_INLINE void fetch(const void * from, size_t bytes) {
    for (size_t at = 0; at < bytes; at += 64) {
        _mm_prefetch((const char *) from + at, _MM_HINT_T1);
    }
}

// As hsum_float_8 of quants.c.
inline float total(__m256 value) {
    __m128 half = _mm_add_ps(_mm256_extractf128_ps(value, 1), _mm256_castps256_ps128(value));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

// As many rows as a register takes, 32 bytes of each or 8 of each. Weights have no sign here and are below 64, so that
// four products fit into 16 bits; `Dots` are such sums, which `scaled` multiplies by 16 bits and adds up in 32.
#ifdef MEDMIND_AVX512

struct Wide {
    static constexpr int BYTES = 64;
    __m512i all;

    static Wide zero() { return { _mm512_setzero_si512() }; }
    static Wide of(const void * at) { return { _mm512_loadu_si512(at) }; }
    static Wide of(__m256i one, __m256i other) { return { _mm512_inserti64x4(_mm512_castsi256_si512(one), other, 1) }; }
    static Wide repeated_8(const void * at) {
        int64_t bytes;
        memcpy(&bytes, at, sizeof bytes);
        return { _mm512_set1_epi64(bytes) };
    }
    static Wide repeated_16(const void * at) {
        return { _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *) at)) };
    }
    static Wide repeated_32(const void * at) {
        return { _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *) at)) };
    }

    Wide operator+(Wide other) const { return { _mm512_add_epi32(all, other.all) }; }
    Wide operator|(Wide other) const { return { _mm512_or_si512(all, other.all) }; }
    Wide operator&(int byte) const { return { _mm512_and_si512(all, _mm512_set1_epi8((char) byte)) }; }
    template <int BITS> Wide down() const { return { _mm512_srli_epi16(all, BITS) }; }
    template <int BITS> Wide up() const { return { _mm512_slli_epi16(all, BITS) }; }
    Wide less_32_times(Wide other) const { return { _mm512_sub_epi32(all, _mm512_slli_epi32(other.all, 5)) }; }

    Wide dots(Wide weights, Wide tokens) const { return { _mm512_dpbusd_epi32(all, weights.all, tokens.all) }; }
    Wide scaled(Wide dots, Wide scales) const { return { _mm512_dpwssd_epi32(all, dots.all, scales.all) }; }
    Wide pairs(Wide some, Wide others) const { return { _mm512_dpwssd_epi32(all, some.all, others.all) }; }

    // What `dots` of eight rows are multiplied by: of 16 bytes the first eight or the `second` eight, a byte each row.
    // `dots` lie in 32 bits, whose upper half counts for nothing.
    static Wide scales_of_rows(const void * at, int second, int) {
        const __m512i places = _mm512_set_epi64(
            0x8080800780808007, 0x8080800680808006, 0x8080800580808005, 0x8080800480808004, 0x8080800380808003,
            0x8080800280808002, 0x8080800180808001, 0x8080800080808000);
        const __m512i wanted = second ? _mm512_or_si512(places, _mm512_set1_epi32(8)) : places;
        return { _mm512_shuffle_epi8(repeated_16(at).all, wanted) };
    }
    // What `dots` of two rows are multiplied by: signed bytes, each for 16 weights; to[i] for those from 32 i on.
    static void scales_of_halves(__m128i one, __m128i other, Wide * to) {
        const __m512i lower = _mm512_set1_epi32(0xffff);
        const __m512i first = _mm512_and_si512(_mm512_cvtepi8_epi32(one), lower);
        const __m512i second = _mm512_and_si512(_mm512_cvtepi8_epi32(other), lower);
        __m512i places = _mm512_set_epi32(17, 17, 17, 17, 16, 16, 16, 16, 1, 1, 1, 1, 0, 0, 0, 0);
        for (int group = 0; group < 8; ++group) {
            to[group] = { _mm512_permutex2var_epi32(first, places, second) };
            places = _mm512_add_epi32(places, _mm512_set1_epi32(2));
        }
    }
    // Of eight rows, with two sums each.
    static __m256i sums_of_rows(const Wide * parts) {
        const __m512i both = _mm512_add_epi32(parts->all, _mm512_srli_epi64(parts->all, 32));
        return _mm512_cvtepi64_epi32(both);
    }
    void settle() const {}
};

// Least values of eight rows: of 32 weights one a byte, those of the eight rows side by side. They are taken as often as
// the numbers of a token by which they go make in all, whose sums come by sixteens.
struct Least {
    Wide pairs[4];

    explicit Least(const uint8_t * least) {
        const __m512i places = _mm512_set_epi64(
            0x800f800f80078007, 0x800e800e80068006, 0x800d800d80058005, 0x800c800c80048004, 0x800b800b80038003,
            0x800a800a80028002, 0x8009800980018001, 0x8008800880008000);
        for (int pair = 0; pair < 4; ++pair) {
            pairs[pair] = { _mm512_shuffle_epi8(Wide::repeated_16(least + 16 * pair).all, places) };
        }
    }
    __m256i times(const int16_t * sums) const {
        Wide found = Wide::zero();
        for (int pair = 0; pair < 4; ++pair) {
            found = found.pairs(pairs[pair], Wide::repeated_8(sums + 4 * pair));
        }
        return Wide::sums_of_rows(&found);
    }
};

// Eight numbers of each row.
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
    __m256 row(int at) const { return at ? _mm512_extractf32x8_ps(all, 1) : _mm512_castps512_ps256(all); }
};

#else

struct Wide {
    static constexpr int BYTES = 32;
    __m256i all;

    static Wide zero() { return { _mm256_setzero_si256() }; }
    static Wide of(const void * at) { return { _mm256_loadu_si256((const __m256i *) at) }; }
    static Wide of(__m256i one, __m256i) { return { one }; }
    static Wide repeated_8(const void * at) {
        int64_t bytes;
        memcpy(&bytes, at, sizeof bytes);
        return { _mm256_set1_epi64x(bytes) };
    }
    static Wide repeated_16(const void * at) {
        return { _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *) at)) };
    }
    static Wide repeated_32(const void * at) { return of(at); }

    Wide operator+(Wide other) const { return { _mm256_add_epi32(all, other.all) }; }
    Wide operator|(Wide other) const { return { _mm256_or_si256(all, other.all) }; }
    Wide operator&(int byte) const { return { _mm256_and_si256(all, _mm256_set1_epi8((char) byte)) }; }
    template <int BITS> Wide down() const { return { _mm256_srli_epi16(all, BITS) }; }
    template <int BITS> Wide up() const { return { _mm256_slli_epi16(all, BITS) }; }
    Wide less_32_times(Wide other) const { return { _mm256_sub_epi32(all, _mm256_slli_epi32(other.all, 5)) }; }

    Wide dots(Wide weights, Wide tokens) const {
        return { _mm256_add_epi16(all, _mm256_maddubs_epi16(weights.all, tokens.all)) };
    }
    Wide scaled(Wide dots, Wide scales) const { return pairs(dots, scales); }
    Wide pairs(Wide some, Wide others) const {
        return { _mm256_add_epi32(all, _mm256_madd_epi16(some.all, others.all)) };
    }

    // `dots` lie in 16 bits; rows come by fours, of which this is the `part`th.
    static Wide scales_of_rows(const void * at, int second, int part) {
        const __m256i places = _mm256_set_epi64x(
            (long long) 0x8003800380038003, (long long) 0x8002800280028002, (long long) 0x8001800180018001,
            (long long) 0x8000800080008000);
        const __m256i first = _mm256_set1_epi16((short) (8 * second + 4 * part));
        return { _mm256_shuffle_epi8(repeated_16(at).all, _mm256_or_si256(places, first)) };
    }
    static void scales_of_halves(__m128i one, __m128i, Wide * to) {
        __m128i places = _mm_set_epi32(0x01010101, 0x01010101, 0, 0);
        for (int group = 0; group < 8; ++group) {
            to[group] = { _mm256_cvtepi8_epi16(_mm_shuffle_epi8(one, places)) };
            places = _mm_add_epi8(places, _mm_set1_epi8(2));
        }
    }
    static __m256i sums_of_rows(const Wide * parts) {
        return _mm256_permute4x64_epi64(_mm256_hadd_epi32(parts[0].all, parts[1].all), 0xd8);
    }
    // Compute it here, of what was computed before: GCC fetches far more in advance than the registers hold.
    void settle() {
#ifdef __GNUC__
        __asm__ volatile("" : "+x"(all));
#endif
    }
};

struct Least {
    __m256i pairs[4];

    explicit Least(const uint8_t * least) {
        for (int pair = 0; pair < 4; ++pair) {
            const __m128i both = _mm_loadu_si128((const __m128i *) least + pair);
            pairs[pair] = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(both, _mm_unpackhi_epi64(both, both)));
        }
    }
    __m256i times(const int16_t * sums) const {
        const __m128i * sixteens = (const __m128i *) sums;
        alignas(16) int32_t numbers[4]; // sums by 32, two in each
        _mm_store_si128(
            (__m128i *) numbers, _mm_hadd_epi16(_mm_loadu_si128(sixteens), _mm_loadu_si128(sixteens + 1)));
        __m256i found = _mm256_setzero_si256();
        for (int pair = 0; pair < 4; ++pair) {
            const __m256i products = _mm256_madd_epi16(pairs[pair], _mm256_set1_epi32(numbers[pair]));
            found = _mm256_add_epi32(found, products);
        }
        return found;
    }
};

struct Floats {
    __m256 all;

    static Floats zero() { return { _mm256_setzero_ps() }; }
    static Floats of(float one, float) { return { _mm256_set1_ps(one) }; }
    Floats add(Wide sums, Floats scales, float scale) const {
        const __m256 product = _mm256_mul_ps(scales.all, _mm256_set1_ps(scale));
        return { _mm256_fmadd_ps(product, _mm256_cvtepi32_ps(sums.all), all) };
    }
    __m256 row(int) const { return all; }
};

#endif

} // namespace medmind

#endif
