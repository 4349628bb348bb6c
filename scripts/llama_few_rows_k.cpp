// Products of a few tokens by weights in q4_K, as llama.cpp repacks them, and in q6_K: all that a file in q4_k_m has.
// Whole numbers are summed in whatever order is fast; what is summed in 32-bit floats, one number for each block of 256
// weights, in the order of ggml_gemv_q4_K_8x8_q8_K and ggml_vec_dot_q6_K_q8_K, which take a single token.

#include "llama_few_rows.h"
#include "repack.h"

#ifdef MEDMIND_FEW_ROWS

namespace medmind {

namespace {

constexpr int ROWS = 8;  // of weights that are interleaved
constexpr int PART = 32; // weights that share a scale and a least value
constexpr int PARTS = ROWS * 8 / Wide::BYTES;
constexpr int AT_ONCE = Wide::BYTES / 32; // rows of q6_K

// Tokens whose sums registers hold beside weights of q4_K, and tokens by which each group of weights of q6_K goes before
// the next one is taken: all, unless registers hold all groups.
constexpr int HELD = Wide::BYTES == 64 ? MOST_TOKENS : 4;
constexpr int TOGETHER = Wide::BYTES == 64 ? 1 : MOST_TOKENS;

constexpr int AHEAD = 8; // blocks: farther than two pages, at whose ends a processor stops fetching by itself

// Scales and least values of the eight parts of eight rows, a byte for each part and row; source: make_block_q4_Kx8 of
// repack.cpp.
struct Levels {
    alignas(64) uint8_t scales[QK_K / PART * ROWS];
    alignas(64) uint8_t least[QK_K / PART * ROWS];

    explicit Levels(const uint8_t * packed) {
        for (int pair = 0; pair < QK_K / PART / 2; ++pair) {
            const __m128i one = of_part(packed + 24 * pair), other = of_part(packed + 24 * pair + 12);
            _mm_store_si128((__m128i *) scales + pair, _mm_unpacklo_epi64(one, other));
            _mm_store_si128((__m128i *) least + pair, _mm_unpackhi_epi64(one, other));
        }
    }
    // Eight scales and eight least values. The last four of both lie in the same four bytes, but for their upper bits.
    static __m128i of_part(const uint8_t * packed) {
        const __m128i bytes = _mm_loadu_si128((const __m128i *) packed);
        const __m128i both = _mm_srlv_epi32(_mm_shuffle_epi32(bytes, 0xaa), _mm_set_epi32(0, 0, 4, 0));
        const __m128i lower = _mm_and_si128(both, _mm_set1_epi8(0x0f));
        const __m128i upper = _mm_and_si128(_mm_srli_epi16(bytes, 2), _mm_set1_epi8(0x30));
        return _mm_unpacklo_epi32(_mm_and_si128(bytes, _mm_set1_epi8(0x3f)), _mm_or_si128(lower, upper));
    }
};

// 32 weights of each row that a register takes, and their scales.
struct Group {
    Wide values[4], scales;

    void take(const block_q4_Kx8 & weights, const Levels & levels, int part, int pair, int second) {
        scales = Wide::scales_of_rows(levels.scales + 2 * ROWS * pair, second, part);
        for (int at = 0; at < 4; ++at) {
            const Wide packed = Wide::of(weights.qs + 256 * pair + 64 * at + Wide::BYTES * part);
            values[at] = (second ? packed.down<4>() : packed) & 0x0f;
        }
    }
};

// Sums of a group, of N tokens by the rows that a register takes.
template <int N>
inline void add_group(const Group & group, const block_q8_K * tokens, int64_t token_step, int first, Wide * sums) {
#pragma GCC unroll MOST_TOKENS
    for (int token = 0; token < N; ++token) {
        const int8_t * numbers = tokens[token * token_step].qs + first;
        Wide dots = Wide::zero();
        for (int at = 0; at < 4; ++at) {
            dots = dots.dots(group.values[at], Wide::repeated_8(numbers + 8 * at));
        }
        sums[token] = sums[token].scaled(dots, group.scales);
    }
}

// Sums of a block. Where registers are few, those of the later tokens are added afterwards, by weights that were kept.
template <int N>
inline void add_block(
        const block_q4_Kx8 & weights, const Levels & levels, int part, const block_q8_K * tokens, int64_t token_step,
        Wide (*to)[PARTS]) {
    constexpr int NOW = N > HELD ? (N + 1) / 2 : N, LATER = N - NOW;
    Group kept[LATER ? QK_K / PART : 1];
    Wide sums[N];
    for (int token = 0; token < N; ++token) {
        sums[token] = Wide::zero();
    }
    for (int pair = 0; pair < QK_K / PART / 2; ++pair) {
#pragma GCC unroll 2
        for (int second = 0; second < 2; ++second) {
            Group once, & group = LATER ? kept[2 * pair + second] : once;
            group.take(weights, levels, part, pair, second);
            add_group<NOW>(group, tokens, token_step, PART * (2 * pair + second), sums);
        }
    }
    if constexpr (LATER > 0) {
        for (int at = 0; at < QK_K / PART; ++at) {
            add_group<LATER>(kept[at], tokens + NOW * token_step, token_step, PART * at, sums + NOW);
        }
    }
    for (int token = 0; token < N; ++token) {
        to[token][part] = sums[token];
    }
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
    for (int64_t block = 0; block < blocks; ++block, ++weights, ++tokens) {
        fetch(weights + AHEAD, sizeof *weights);
        const Levels levels(weights->scales);
        Wide sums[N][PARTS];
        for (int part = 0; part < PARTS; ++part) {
            add_block<N>(*weights, levels, part, tokens, token_step, sums);
        }
        const Least least(levels.least);
        const __m256 scale = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) weights->d));
        const __m256 least_scale = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) weights->dmin));
        for (int token = 0; token < N; ++token) {
            const block_q8_K & from = tokens[token * token_step];
            const __m256 token_scale = _mm256_set1_ps(from.d);
            const __m256 found = _mm256_cvtepi32_ps(Wide::sums_of_rows(sums[token]));
            const __m256 under = _mm256_cvtepi32_ps(least.times(from.bsums));
            held[token] = _mm256_fmadd_ps(found, _mm256_mul_ps(scale, token_scale), held[token]);
            below[token] = _mm256_fmadd_ps(under, _mm256_mul_ps(least_scale, token_scale), below[token]);
        }
    }
    for (int token = 0; token < N; ++token) {
        _mm256_storeu_ps(to + token * to_step, _mm256_sub_ps(held[token], below[token]));
    }
}

// Of 256 weights of the rows that a register takes, which are read as numbers without a sign, 32 too large.
struct Weights {
    static constexpr int GROUPS = QK_K / PART;
    Wide values[GROUPS], scales[GROUPS], every_scale;

    Weights(const block_q6_K & one, const block_q6_K & other) {
        for (int half = 0; half < 2; ++half) {
            const Wide high = part(one.qh, other.qh, half);
            const Wide low = part(one.ql, other.ql, 2 * half), later = part(one.ql, other.ql, 2 * half + 1);
            Wide * to = values + 4 * half;
            to[0] = (low & 0x0f) | (high & 0x03).up<4>();
            to[1] = (later & 0x0f) | (high & 0x0c).up<2>();
            to[2] = (low.down<4>() & 0x0f) | (high & 0x30);
            to[3] = (later.down<4>() & 0x0f) | (high & 0xc0).down<2>();
        }
        const __m128i first = _mm_loadu_si128((const __m128i *) one.scales);
        const __m128i second = _mm_loadu_si128((const __m128i *) other.scales);
        Wide::scales_of_halves(first, second, scales);
        every_scale = Wide::of(_mm256_cvtepi8_epi16(first), _mm256_cvtepi8_epi16(second));
    }
    static Wide part(const uint8_t * one, const uint8_t * other, int at) {
        const __m256i first = _mm256_loadu_si256((const __m256i *) one + at);
        return Wide::of(first, _mm256_loadu_si256((const __m256i *) other + at));
    }

    // Of N tokens.
    template <int N> void sums(const block_q8_K * tokens, int64_t token_step, Wide * to) const {
        constexpr int CHAINS = N < 3 ? 2 : 1; // few additions one after the other would be waited for
        Wide found[CHAINS][N];
        for (int token = 0; token < N; ++token) {
            for (int chain = 0; chain < CHAINS; ++chain) {
                found[chain][token] = Wide::zero();
            }
        }
#pragma GCC unroll 8
        for (int group = 0; group < GROUPS; ++group) {
#pragma GCC unroll MOST_TOKENS
            for (int token = 0; token < N; ++token) {
                const Wide numbers = Wide::repeated_32(tokens[token * token_step].qs + PART * group);
                Wide & sum = found[group % CHAINS][token];
                sum = sum.scaled(Wide::zero().dots(values[group], numbers), scales[group]);
                sum.settle();
            }
        }
        for (int token = 0; token < N; ++token) {
            Wide all = found[0][token];
            if constexpr (CHAINS > 1) {
                all = all + found[1][token];
            }
            const Wide numbers = Wide::repeated_32(tokens[token * token_step].bsums);
            to[token] = all.less_32_times(Wide::zero().pairs(numbers, every_scale));
        }
    }
};

// Of N tokens by the rows that a register takes: one row, or two, the last one of which may be given twice.
template <int N>
void rows_at_once(
        const block_q6_K * one, const block_q6_K * other, int64_t blocks, size_t ahead, const block_q8_K * tokens,
        int64_t token_step, float * to, int64_t to_step) {
    Floats held[N];
    for (int token = 0; token < N; ++token) {
        held[token] = Floats::zero();
    }
    for (int64_t block = 0; block < blocks; ++block) {
        fetch((const char *) (one + block) + ahead, sizeof *one);
        if (AT_ONCE > 1) {
            fetch((const char *) (other + block) + ahead, sizeof *other);
        }
        const Weights weights(one[block], other[block]);
        const Floats scales = Floats::of(GGML_CPU_FP16_TO_FP32(one[block].d), GGML_CPU_FP16_TO_FP32(other[block].d));
        constexpr int BY = std::min(N, TOGETHER);
#pragma GCC unroll MOST_TOKENS
        for (int token = 0; token < N; token += BY) {
            Wide sums[BY];
            weights.sums<BY>(tokens + token * token_step + block, token_step, sums);
            for (int at = 0; at < BY; ++at) {
                held[token + at] = held[token + at].add(sums[at], scales, tokens[(token + at) * token_step + block].d);
            }
        }
    }
    for (int row = 0; row < (other == one ? 1 : AT_ONCE); ++row) {
        for (int token = 0; token < N; ++token) {
            to[token * to_step + row] = total(held[token].row(row));
        }
    }
}

template <int N> void rows_q4_k(const Product & of, Parts & parts) {
    for (int64_t first, last; parts.next(first, last);) {
        for (int64_t row = first; row < last; row += ROWS) {
            const block_q4_Kx8 * weights = (const block_q4_Kx8 *) of.weights + row / ROWS * of.step;
            eight_rows<N>(
                weights, of.blocks, (const block_q8_K *) of.tokens, of.token_step, of.to + row, of.to_step);
        }
    }
}

template <int N> void rows_q6_k(const Product & of, Parts & parts) {
    for (int64_t first, last; parts.next(first, last);) {
        for (int64_t row = first; row < last; row += AT_ONCE) {
            const block_q6_K * one = (const block_q6_K *) of.weights + row * of.step;
            const block_q6_K * other = row + AT_ONCE <= last ? one + (AT_ONCE - 1) * of.step : one;
            rows_at_once<N>(
                one, other, of.blocks, AT_ONCE * of.step * sizeof *one, (const block_q8_K *) of.tokens, of.token_step,
                of.to + row, of.to_step);
        }
    }
}

using Rows = void (*)(const Product &, Parts &);
constexpr Rows Q4_K[MOST_TOKENS + 1] = { nullptr,      rows_q4_k<1>, rows_q4_k<2>, rows_q4_k<3>, rows_q4_k<4>,
                                  rows_q4_k<5>, rows_q4_k<6>, rows_q4_k<7>, rows_q4_k<8> };
constexpr Rows Q6_K[MOST_TOKENS + 1] = { nullptr,      rows_q6_k<1>, rows_q6_k<2>, rows_q6_k<3>, rows_q6_k<4>,
                                  rows_q6_k<5>, rows_q6_k<6>, rows_q6_k<7>, rows_q6_k<8> };

} // namespace

void multiply_q4_k(const Product & product, Parts parts) { Q4_K[product.count](product, parts); }
void multiply_q6_k(const Product & product, Parts parts) { Q6_K[product.count](product, parts); }

} // namespace medmind

#endif
