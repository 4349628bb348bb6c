// Products of a few tokens by weights in q4_K, as llama.cpp repacks them, and in q6_K: all that a file in q4_k_m has.
// Whole numbers are summed in whatever order is fast; what is summed in 32-bit floats, one number for each block of 256
// weights, in the order of ggml_gemv_q4_K_8x8_q8_K and ggml_vec_dot_q6_K_q8_K, which compute a single token.

#include "llama_few_rows.h"
#include "repack.h"

#include <algorithm>

#ifdef MEDMIND_FEW_ROWS

namespace medmind {

namespace {

constexpr int ROWS = 8;  // of weights that are interleaved
constexpr int PART = 32; // weights that share a scale and a least value

constexpr int AHEAD = 3; // blocks: farther than one page, at whose end a processor stops fetching by itself

// Begin to fetch what is needed soon.
inline void fetch(const void * from, size_t bytes) {
    for (size_t at = 0; at < bytes; at += 64) {
        _mm_prefetch((const char *) from + at, _MM_HINT_T0);
    }
}

// Scales and least values of one part of eight rows, a byte for each; source: make_block_q4_Kx8 of repack.cpp.
struct Levels {
    uint64_t scales, least;

    explicit Levels(const uint8_t * packed) {
        uint64_t first;
        uint32_t second;
        memcpy(&first, packed, sizeof first);
        memcpy(&second, packed + sizeof first, sizeof second);
        const uint64_t low = first & 0x3f3f3f3f3f3f3f3f;
        const uint64_t fours = (second & 0x0f0f0f0f) | (uint64_t) ((second >> 4) & 0x0f0f0f0f) << 32;
        const uint64_t high = fours | ((first >> 2) & 0x3030303030303030);
        scales = (low & 0xffffffff) | high << 32;
        least = low >> 32 | (high & 0xffffffff00000000);
    }
};

// For each row the least values of two parts, each as often as sums of tokens belong to it: twice.
Wide both_least(uint64_t one, uint64_t other) {
    const __m128i all = _mm_set_epi64x((long long) other, (long long) one);
    const __m256i twice = _mm256_broadcastsi128_si256(all);
    const __m256i of_two = _mm256_set_epi64x(
        (long long) 0x8009800980018001, (long long) 0x8008800880008000, (long long) 0x8009800980018001,
        (long long) 0x8008800880008000);
    const __m256i places = _mm256_add_epi8(of_two, _mm256_set_epi64x(0x0002000200020002, 0x0002000200020002, 0, 0));
    const __m256i later = _mm256_add_epi8(places, _mm256_set1_epi16(4));
    return Wide::of(_mm256_shuffle_epi8(twice, places), _mm256_shuffle_epi8(twice, later));
}

// Of N tokens by eight rows.
template <int N>
void eight_rows(
        const block_q4_Kx8 * weights, int64_t blocks, const block_q8_K * tokens, int64_t token_step, float * to,
        int64_t to_step) {
    __m256 held[N], below[N];
    for (int token = 0; token < N; ++token) {
        held[token] = below[token] = _mm256_setzero_ps();
    }
    for (int64_t block = 0; block < blocks; ++block) {
        const block_q4_Kx8 & from = weights[block];
        fetch(weights + block + AHEAD, sizeof from);
        Wide sums[N], least[N];
        for (int token = 0; token < N; ++token) {
            sums[token] = least[token] = Wide::zero();
        }
        for (int pair = 0; pair < QK_K / PART / 2; ++pair) {
            const Levels first(from.scales + 24 * pair), second(from.scales + 24 * pair + 12);
            const Wide both = both_least(first.least, second.least);
            const Wide scales[2] = { Wide::scales_of_eight(first.scales), Wide::scales_of_eight(second.scales) };
            for (int part = 0; part < 2; ++part) {
                Wide values[4];
                for (int at = 0; at < 4; ++at) {
                    const Wide packed = Wide::of(from.qs + 256 * pair + 64 * at);
                    values[at] = part ? packed.high_halves() : packed.low_halves();
                }
                for (int token = 0; token < N; ++token) {
                    const int8_t * numbers = tokens[token * token_step + block].qs + 64 * pair + PART * part;
                    Wide dots = Wide::zero();
                    for (int at = 0; at < 4; ++at) {
                        dots = dots.dots(values[at], Wide::eight_times(numbers + 8 * at));
                    }
                    sums[token] = sums[token].scaled(dots, scales[part]);
                }
            }
            for (int token = 0; token < N; ++token) {
                least[token] =
                    least[token].pairs(both, Wide::eight_times(tokens[token * token_step + block].bsums + 4 * pair));
            }
        }
        const __m256 scale = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) from.d));
        const __m256 least_scale = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) from.dmin));
        for (int token = 0; token < N; ++token) {
            const __m256 token_scale = _mm256_set1_ps(tokens[token * token_step + block].d);
            const __m256 found = _mm256_cvtepi32_ps(sums[token].sums_of_eight());
            const __m256 under = _mm256_cvtepi32_ps(least[token].sums_of_eight());
            held[token] = _mm256_fmadd_ps(found, _mm256_mul_ps(scale, token_scale), held[token]);
            below[token] = _mm256_fmadd_ps(under, _mm256_mul_ps(least_scale, token_scale), below[token]);
        }
    }
    for (int token = 0; token < N; ++token) {
        _mm256_storeu_ps(to + token * to_step, _mm256_sub_ps(held[token], below[token]));
    }
}

// Of 256 weights of two rows, which are read as numbers without a sign, 32 too large.
struct Weights {
    static constexpr int GROUPS = QK_K / PART;
    Wide values[GROUPS], scales[GROUPS], every_scale;

    Weights(const block_q6_K & one, const block_q6_K & other) {
        for (int half = 0; half < 2; ++half) {
            Wide * to = values + 4 * half;
            const Wide high = Wide::of(part(one.qh, half), part(other.qh, half));
            const Wide low[2] = {
                Wide::of(part(one.ql, 2 * half), part(other.ql, 2 * half)),
                Wide::of(part(one.ql, 2 * half + 1), part(other.ql, 2 * half + 1)),
            };
            to[0] = low[0].low_halves() | high.fours<0>();
            to[1] = low[1].low_halves() | high.fours<1>();
            to[2] = low[0].high_halves() | high.fours<2>();
            to[3] = low[1].high_halves() | high.fours<3>();
        }
        const __m128i first = _mm_loadu_si128((const __m128i *) one.scales);
        const __m128i second = _mm_loadu_si128((const __m128i *) other.scales);
        for (int group = 0; group < GROUPS; ++group) {
            scales[group] = Wide::scales_of_two(first, second, group);
        }
        every_scale = Wide::of(_mm256_cvtepi8_epi16(first), _mm256_cvtepi8_epi16(second));
    }
    static __m256i part(const uint8_t * bytes, int at) { return _mm256_loadu_si256((const __m256i *) bytes + at); }

    Wide sums(const block_q8_K & token) const {
        Wide sums[2] = { Wide::zero(), Wide::zero() }; // one after the other would be waited for
        for (int group = 0; group < GROUPS; ++group) {
            const Wide dots = Wide::zero().dots(values[group], Wide::twice(token.qs + PART * group));
            sums[group % 2] = sums[group % 2].scaled(dots, scales[group]);
        }
        return (sums[0] + sums[1]).less_32_times(Wide::zero().pairs(Wide::twice(token.bsums), every_scale));
    }
};

// Of N tokens by two rows of weights, or one that is given twice.
template <int N>
void two_rows(
        const block_q6_K * one, const block_q6_K * other, int64_t blocks, size_t ahead, const block_q8_K * tokens,
        int64_t token_step, float * to, int64_t to_step) {
    Floats held[N];
    for (int token = 0; token < N; ++token) {
        held[token] = Floats::zero();
    }
    for (int64_t block = 0; block < blocks; ++block) {
        fetch((const char *) (one + block) + ahead, sizeof *one);
        fetch((const char *) (other + block) + ahead, sizeof *other);
        const Weights weights(one[block], other[block]);
        const Floats scales = Floats::of(GGML_CPU_FP16_TO_FP32(one[block].d), GGML_CPU_FP16_TO_FP32(other[block].d));
#pragma GCC unroll MOST
        for (int token = 0; token < N; ++token) {
            const block_q8_K & from = tokens[token * token_step + block];
            held[token] = held[token].add(weights.sums(from), scales, from.d);
        }
    }
    for (int token = 0; token < N; ++token) {
        to[token * to_step] = total(held[token].one());
        if (other != one) {
            to[token * to_step + 1] = total(held[token].other());
        }
    }
}

template <int N> void rows_q4_k(const Product & of, int64_t first, int64_t last) {
    for (int64_t eight = first; eight < last; ++eight) {
        const block_q4_Kx8 * weights = (const block_q4_Kx8 *) of.weights + eight * of.step;
        eight_rows<N>(weights, of.blocks, (const block_q8_K *) of.tokens, of.token_step, of.to + ROWS * eight, of.to_step);
    }
}

template <int N> void rows_q6_k(const Product & of, int64_t first, int64_t last) {
    for (int64_t row = first; row < last; row += 2) {
        const block_q6_K * one = (const block_q6_K *) of.weights + row * of.step;
        const block_q6_K * other = row + 1 < last ? one + of.step : one;
        two_rows<N>(one, other, of.blocks, 2 * of.step * sizeof *one, (const block_q8_K *) of.tokens, of.token_step, of.to + row, of.to_step);
    }
}

using Rows = void (*)(const Product &, int64_t, int64_t);
constexpr Rows Q4_K[MOST + 1] = { nullptr,      nullptr,      rows_q4_k<2>, rows_q4_k<3>, rows_q4_k<4>,
                                  rows_q4_k<5>, rows_q4_k<6>, rows_q4_k<7>, rows_q4_k<8> };
constexpr Rows Q6_K[MOST + 1] = { nullptr,      nullptr,      rows_q6_k<2>, rows_q6_k<3>, rows_q6_k<4>,
                                  rows_q6_k<5>, rows_q6_k<6>, rows_q6_k<7>, rows_q6_k<8> };

} // namespace

void multiply_q4_k(const Product & product, int64_t first, int64_t last) { Q4_K[product.count](product, first, last); }
void multiply_q6_k(const Product & product, int64_t first, int64_t last) { Q6_K[product.count](product, first, last); }

} // namespace medmind

#endif
