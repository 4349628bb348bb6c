// Vectors of 32-bit numbers on x86-64, caches read into them, and what attention does to a tile: some rows of queries that
// share a key, over a block of the cache. For llama_attention.cpp, which says what it is for.

#pragma once

#define GGML_COMMON_DECL_CPP
#include "ggml-common.h"

#include "ggml-cpu-impl.h"
#include "ggml-impl.h"
#include "ops.h"
#include "vec.h"

#include <algorithm>

namespace {

#if defined(__AVX512F__) && defined(__AVX512DQ__)
constexpr int LANES = 16, PLACES = 4;
using floats = __m512;
inline floats nothing() { return _mm512_setzero_ps(); }
inline floats every(float value) { return _mm512_set1_ps(value); }
inline floats load(const float * from) { return _mm512_loadu_ps(from); }
inline void store(float * to, floats value) { _mm512_storeu_ps(to, value); }
inline floats product(floats one, floats other) { return _mm512_mul_ps(one, other); }
inline floats add_product(floats one, floats other, floats sum) { return _mm512_fmadd_ps(one, other, sum); }
inline floats sum_of(floats one, floats other) { return _mm512_add_ps(one, other); }
inline floats difference(floats one, floats other) { return _mm512_sub_ps(one, other); }
inline floats larger(floats one, floats other) { return _mm512_max_ps(one, other); }
inline float total(floats value) { return _mm512_reduce_add_ps(value); }
inline float highest(floats value) { return _mm512_reduce_max_ps(value); }
inline __m256 halves(floats value) {
    return _mm256_add_ps(_mm512_castps512_ps256(value), _mm512_extractf32x8_ps(value, 1));
}
inline __m128 totals(floats a, floats b, floats c, floats d) {
    const __m256 four = _mm256_hadd_ps(_mm256_hadd_ps(halves(a), halves(b)), _mm256_hadd_ps(halves(c), halves(d)));
    return _mm_add_ps(_mm256_castps256_ps128(four), _mm256_extractf128_ps(four, 1));
}
inline floats from_f16(const void * from) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) from)); }
inline floats from_bf16(const void * from) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *) from));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
inline floats from_int8(const void * from) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *) from)));
}
#else
constexpr int LANES = 8, PLACES = 2;
using floats = __m256;
inline floats nothing() { return _mm256_setzero_ps(); }
inline floats every(float value) { return _mm256_set1_ps(value); }
inline floats load(const float * from) { return _mm256_loadu_ps(from); }
inline void store(float * to, floats value) { _mm256_storeu_ps(to, value); }
inline floats product(floats one, floats other) { return _mm256_mul_ps(one, other); }
inline floats add_product(floats one, floats other, floats sum) { return _mm256_fmadd_ps(one, other, sum); }
inline floats sum_of(floats one, floats other) { return _mm256_add_ps(one, other); }
inline floats difference(floats one, floats other) { return _mm256_sub_ps(one, other); }
inline floats larger(floats one, floats other) { return _mm256_max_ps(one, other); }
inline float highest(floats value) {
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(value), _mm256_extractf128_ps(value, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}
inline float total(floats value) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(value), _mm256_extractf128_ps(value, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}
inline __m128 totals(floats a, floats b, floats c, floats d) {
    const __m256 four = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    return _mm_add_ps(_mm256_castps256_ps128(four), _mm256_extractf128_ps(four, 1));
}
inline floats from_f16(const void * from) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) from)); }
inline floats from_bf16(const void * from) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *) from)), 16));
}
inline floats from_int8(const void * from) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *) from)));
}
#endif

// Kinds of cache: LANES numbers of a row from one on; QK8_0 is a multiple of LANES.
struct F16 {
    static floats at(const char * row, int64_t place) { return from_f16(row + place * sizeof(ggml_fp16_t)); }
};
struct BF16 {
    static floats at(const char * row, int64_t place) { return from_bf16(row + place * sizeof(ggml_bf16_t)); }
};
struct Q8 {
    static floats at(const char * row, int64_t place) {
        const block_q8_0 & block = ((const block_q8_0 *) row)[place / QK8_0];
        return product(every(GGML_CPU_FP16_TO_FP32(block.d)), from_int8(block.qs + place % QK8_0));
    }
};

constexpr int BLOCK = 64; // places of the cache that are worked at together
constexpr int TILE = 4;   // rows (a row is a head of a token) whose sums are held in registers
constexpr int WIDE = 2 * LANES;

// A block of one head of a cache. Its places lie `step` bytes apart, too far for the processor to foresee which comes
// next: meanwhile the next block is fetched as it lies in memory, `fetched` on, by each head as much as is its own.
struct Block {
    const char * first;
    const char * fetched;
    size_t step, line;

    Block(const ggml_tensor * cache, int64_t head, int64_t begin, int64_t ahead) :
        first((const char *) cache->data + head * cache->nb[2] + begin * cache->nb[1]),
        step(cache->nb[1]),
        line(ggml_row_size(cache->type, cache->ne[0])) {
        fetched = (const char *) cache->data + (begin + ahead) * step + head * BLOCK * line;
    }
    const char * operator[](int place) const { return first + place * step; }
    void fetch(size_t from, size_t to) const {
        for (size_t at = from; at < to; at += CACHE_LINE_SIZE) {
            _mm_prefetch(fetched + at, _MM_HINT_T1); // into the second level: the first is too small
        }
    }
};

// Scores of N rows of queries at `count` places; up to PLACES - 1 more are written.
template <typename Kind, int N>
void scores_of(const Block & keys, int count, int64_t width, const float * const * queries, float * scores) {
    for (int place = 0; place < count; place += PLACES) {
        const char * lines[PLACES];
        floats sums[PLACES][TILE];
        for (int at = 0; at < PLACES; ++at) {
            lines[at] = keys[std::min(place + at, count - 1)];
            for (int row = 0; row < TILE; ++row) {
                sums[at][row] = nothing();
            }
        }
        keys.fetch(place * keys.line, (place + PLACES) * keys.line);
        for (int64_t at = 0; at < width; at += LANES) {
            floats key[PLACES];
            for (int line = 0; line < PLACES; ++line) {
                key[line] = Kind::at(lines[line], at);
            }
            for (int row = 0; row < N; ++row) {
                const floats query = load(queries[row] + at);
                for (int line = 0; line < PLACES; ++line) {
                    sums[line][row] = add_product(query, key[line], sums[line][row]);
                }
            }
        }
        for (int at = 0; at < PLACES; ++at) {
            alignas(16) float found[TILE];
            _mm_store_ps(found, totals(sums[at][0], sums[at][1], sums[at][2], sums[at][3]));
            for (int row = 0; row < N; ++row) {
                scores[row * BLOCK + place + at] = found[row];
            }
        }
    }
}

// Adds to N rows of outputs the values of `count` places, each by its weight.
template <typename Kind, int N>
void add_values(const Block & values, int count, int64_t width, const float * weights, float * const * outputs) {
    const size_t line = values.line / width;
    for (int64_t at = 0; at < width; at += WIDE) {
        floats sums[2][N];
        for (int row = 0; row < N; ++row) {
            sums[0][row] = load(outputs[row] + at);
            sums[1][row] = load(outputs[row] + at + LANES);
        }
        for (int place = 0; place < count; ++place) {
            values.fetch((at * BLOCK + place * WIDE) * line, (at * BLOCK + place * WIDE) * line + 1);
            const floats value = Kind::at(values[place], at), next = Kind::at(values[place], at + LANES);
            for (int row = 0; row < N; ++row) {
                const floats weight = every(weights[row * BLOCK + place]);
                sums[0][row] = add_product(weight, value, sums[0][row]);
                sums[1][row] = add_product(weight, next, sums[1][row]);
            }
        }
        for (int row = 0; row < N; ++row) {
            store(outputs[row] + at, sums[0][row]);
            store(outputs[row] + at + LANES, sums[1][row]);
        }
    }
}

// Weights of a block in the place of scores: e to the power of each less `most`; their sum.
inline float weights_of(float * scores, float most) {
    floats sum = nothing();
    for (int place = 0; place < BLOCK; place += LANES) {
        const floats weight = ggml_v_expf(difference(load(scores + place), every(most)));
        store(scores + place, weight);
        sum = sum_of(sum, weight);
    }
    return total(sum);
}

void scale(float * numbers, int64_t count, float by) {
    for (int64_t at = 0; at < count; at += LANES) {
        store(numbers + at, product(load(numbers + at), every(by)));
    }
}

} // namespace
