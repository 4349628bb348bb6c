// Products of a few tokens by weights in q8_0, with the bits of ggml_vec_dot_q8_0_q8_0, which takes one token.

#include "llama_few_rows.h"

#include <vector>

#ifdef MEDMIND_FEW_ROWS

namespace medmind {

namespace {

constexpr int AT_ONCE = Wide::BYTES / 32; // rows

// A block of one row of weights, or of two side by side; `add` sums four products each.
#ifdef MEDMIND_AVX512
struct Weights {
    __m512i values, offset;
    __m512 scale;

    Weights(const block_q8_0 * one, const block_q8_0 * other) {
        const __m256i low = _mm256_loadu_si256((const __m256i *) one->qs);
        const __m256i high = _mm256_loadu_si256((const __m256i *) other->qs);
        values = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
        // The instruction takes one factor without a sign: tokens' numbers are 128 too large, which is taken off again.
        const __m512i zero = _mm512_setzero_si512();
        offset = _mm512_sub_epi32(zero, _mm512_dpbusd_epi32(zero, _mm512_set1_epi8((char) 128), values));
        const __m128i both = _mm_insert_epi16(_mm_cvtsi32_si128(one->d), other->d, 1);
        const __m512i each = _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
        scale = _mm512_permutexvar_ps(each, _mm512_castps128_ps512(_mm_cvtph_ps(both)));
    }
    Floats add(const uint8_t * token, float token_scale, Floats before) const {
        const __m512i both = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *) token));
        const __m512 found = _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(offset, both, values));
        return { _mm512_fmadd_ps(_mm512_mul_ps(scale, _mm512_set1_ps(token_scale)), found, before.all) };
    }
};
constexpr uint8_t SHIFT = 128;
#else
struct Weights {
    __m256i values, sizes;
    __m256 scale;

    Weights(const block_q8_0 * one, const block_q8_0 *) :
        values(_mm256_loadu_si256((const __m256i *) one->qs)),
        sizes(_mm256_sign_epi8(values, values)),
        scale(_mm256_set1_ps(GGML_CPU_FP16_TO_FP32(one->d))) {}
    Floats add(const uint8_t * token, float token_scale, Floats before) const {
        const __m256i signed_token = _mm256_sign_epi8(_mm256_loadu_si256((const __m256i *) token), values);
        const __m256i pairs = _mm256_maddubs_epi16(sizes, signed_token);
        const __m256 found = _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
        return { _mm256_fmadd_ps(_mm256_mul_ps(scale, _mm256_set1_ps(token_scale)), found, before.all) };
    }
};
constexpr uint8_t SHIFT = 0;
#endif

// Tokens, block by block and in each block token by token.
struct Tokens {
    std::vector<uint8_t> values; // SHIFT flips the sign bit where Weights::add takes numbers without one
    std::vector<float> scales;

    void take(const block_q8_0 * from, int64_t step, int64_t blocks, int count) {
        values.resize(blocks * count * QK8_0);
        scales.resize(blocks * count);
        for (int token = 0; token < count; ++token) {
            for (int64_t block = 0; block < blocks; ++block) {
                const block_q8_0 & one = from[token * step + block];
                scales[block * count + token] = GGML_CPU_FP16_TO_FP32(one.d);
                for (int at = 0; at < QK8_0; ++at) {
                    values[(block * count + token) * QK8_0 + at] = (uint8_t) one.qs[at] ^ SHIFT;
                }
            }
        }
    }
};

// Of N tokens by two rows of weights, or one that is given twice. Rows `ahead` bytes farther are fetched meanwhile: two
// that are read side by side are no stream that the processor foresees.
template <int N>
void product(
        const block_q8_0 * one, const block_q8_0 * other, int64_t blocks, size_t ahead, const Tokens & tokens,
        __m256 (*found)[N]) {
    Floats held[N];
    for (int token = 0; token < N; ++token) {
        held[token] = Floats::zero();
    }
    const uint8_t * values = tokens.values.data();
    const float * scales = tokens.scales.data();
    for (int64_t block = 0; block < blocks; ++block, values += N * QK8_0, scales += N) {
        fetch((const char *) (one + block) + ahead, sizeof *one);
        if (AT_ONCE > 1) {
            fetch((const char *) (other + block) + ahead, sizeof *other);
        }
        const Weights weights(one + block, other + block);
        for (int token = 0; token < N; ++token) {
            held[token] = weights.add(values + token * QK8_0, scales[token], held[token]);
        }
    }
    for (int row = 0; row < AT_ONCE; ++row) {
        for (int token = 0; token < N; ++token) {
            found[row][token] = held[token].row(row);
        }
    }
}

template <int N> void rows(const Product & of, const Tokens & tokens, Parts & parts) {
    const block_q8_0 * weights = (const block_q8_0 *) of.weights;
    for (int64_t first, last; parts.next(first, last);) {
        for (int64_t row = first; row < last; row += AT_ONCE) {
            __m256 found[AT_ONCE][N];
            const int64_t next = std::min(row + AT_ONCE - 1, last - 1);
            const size_t ahead = AT_ONCE * of.step * sizeof(block_q8_0);
            product<N>(weights + row * of.step, weights + next * of.step, of.blocks, ahead, tokens, found);
            for (int at = 0; at < AT_ONCE && row + at < last; ++at) {
                for (int token = 0; token < N; ++token) {
                    of.to[token * of.to_step + row + at] = total(found[at][token]);
                }
            }
        }
    }
}

using Rows = void (*)(const Product &, const Tokens &, Parts &);
constexpr Rows OF[MOST_TOKENS + 1] = { nullptr, rows<1>, rows<2>, rows<3>, rows<4>,
                                       rows<5>, rows<6>, rows<7>, rows<8> };

} // namespace

void multiply_q8_0(const Product & product, Parts parts) {
    static thread_local Tokens tokens;
    tokens.take((const block_q8_0 *) product.tokens, product.token_step, product.blocks, product.count);
    OF[product.count](product, tokens, parts);
}

} // namespace medmind

#endif
