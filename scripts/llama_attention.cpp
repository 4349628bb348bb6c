// Attention for llama.cpp's CPU backend, in the place of its own ggml_compute_forward_flash_attn_ext (see
// llama_build.cmake): a key that several heads share (GQA) is read once for all of them and for all tokens of a step,
// and sums are kept in 32 bits. llama.cpp's goes through keys and values once for each head and token, and sums 16-bit
// values in 16 bits. What this does not know (other types or processors, sinks, ALiBi, capped scores) llama.cpp does.
//
// Source: Dao et al. 2022, https://arxiv.org/abs/2205.14135, and Rabe & Staats 2021, https://arxiv.org/abs/2112.05682.
//
// As in llama.cpp's own for many tokens, a value that is infinite spoils also those who do not see it.
//
// What a token gets depends neither on the tokens beside it nor on how far the cache is padded, to the bit: blocks of
// the cache begin at fixed places, and every row is summed in the same order.

#include "ggml-backend.h"
#include "ggml-cpu-impl.h"
#include "ggml-impl.h"
#include "ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

extern "C" {

GGML_BACKEND_API bool medmind_attention(void);
void medmind_compute_forward_flash_attn_ext(const struct ggml_compute_params * params, struct ggml_tensor * dst);

} // extern "C"

static_assert(
    std::is_same_v<decltype(&medmind_compute_forward_flash_attn_ext), decltype(&ggml_compute_forward_flash_attn_ext)>);

#if (defined(__AVX512F__) && defined(__AVX512DQ__)) || (defined(__AVX2__) && defined(__FMA__) && defined(__F16C__))

#include "llama_attention.h"

namespace {

constexpr int TOGETHER = 8; // tokens that go through the cache together, at most
constexpr int FEW = 4;      // threads among which blocks alone are shared out

// What a thread holds of a group of tokens, in llama.cpp's work buffer: of each row (token by token, head by head)
// what its values come to so far, the largest score and the sum of the weights.
struct Held {
    float *outputs, *most, *sums, *scores;

    static int64_t size(int64_t rows, int64_t width) { return rows * (width + 2) + TILE * BLOCK + CACHE_LINE_SIZE_F32; }

    Held(void * buffer, int thread, int64_t rows, int64_t width) :
        outputs((float *) buffer + thread * size(rows, width)),
        most(outputs + rows * width),
        sums(most + rows),
        scores(sums + rows) {}
};

// The blocks and heads of a thread: every so many'th, from one on. By blocks, threads read what lies together; many
// share heads as well, since a short conversation has few blocks. Depends on nothing that changes from token to token.
struct Share {
    int block, blocks, head, heads;

    Share(int thread, int threads, int64_t all_heads) {
        heads = 1;
        while (threads % (2 * heads) == 0 && all_heads % (2 * heads) == 0 && threads / (2 * heads) >= FEW) {
            heads *= 2;
        }
        blocks = threads / heads;
        head = thread % heads;
        block = thread / heads;
    }
};

struct Attention {
    const ggml_tensor *q, *k, *v, *mask;
    ggml_tensor * dst;
    float factor;

    explicit Attention(ggml_tensor * dst) :
        q(dst->src[0]), k(dst->src[1]), v(dst->src[2]), mask(dst->src[3]), dst(dst) {
        memcpy(&factor, dst->op_params, sizeof(factor));
    }
    int64_t heads() const { return q->ne[2]; }
    int64_t shared() const { return q->ne[2] / k->ne[2]; } // heads that share a key

    const ggml_fp16_t * mask_of(int64_t token) const {
        return mask ? (const ggml_fp16_t *) ((const char *) mask->data + token * mask->nb[1]) : nullptr;
    }

    // Places of a block up to the last that one of the tokens sees; `masked` is filled with what is added to scores.
    int seen(int64_t begin, int64_t first, int64_t last, float * masked) const {
        const int count = std::min<int64_t>(BLOCK, k->ne[1] - begin);
        int found = 0;
        for (int64_t token = first; token < last; ++token, masked += BLOCK) {
            const ggml_fp16_t * bias = mask_of(token);
            for (int place = 0; place < BLOCK; ++place) {
                masked[place] = place >= count ? -INFINITY : bias ? GGML_CPU_FP16_TO_FP32(bias[begin + place]) : 0.0f;
                found = masked[place] == -INFINITY ? found : std::max(found, place + 1);
            }
        }
        return found;
    }

    // N rows that share a key, from one on, counted from the group's `first` token.
    template <typename Kind, int N>
    void tile(
            const Held & held, const Block & keys, const Block & values, int64_t head, int count, const float * masked,
            int64_t first, int64_t row) const {
        const float * queries[N];
        float * outputs[N];
        int64_t places[N];
        for (int at = 0; at < N; ++at) {
            const int64_t token = (row + at) / shared(), mine = head * shared() + (row + at) % shared();
            queries[at] = (const float *) ((const char *) q->data + (first + token) * q->nb[1] + mine * q->nb[2]);
            places[at] = token * heads() + mine;
            outputs[at] = held.outputs + places[at] * v->ne[0];
        }
        scores_of<Kind, N>(keys, count, k->ne[0], queries, held.scores);
        for (int at = 0; at < N; ++at) {
            float * scores = held.scores + at * BLOCK;
            std::fill(scores + count, scores + BLOCK, 0.0f);
            const float * bias = masked + (row + at) / shared() * BLOCK;
            floats top = every(-INFINITY);
            for (int place = 0; place < BLOCK; place += LANES) {
                const floats score = add_product(load(scores + place), every(factor), load(bias + place));
                store(scores + place, score);
                top = larger(top, score);
            }
            const float largest = highest(top);
            float & most = held.most[places[at]];
            float & sum = held.sums[places[at]];
            if (largest == -INFINITY) {
                std::fill(scores, scores + BLOCK, 0.0f);
                continue;
            }
            if (largest > most) {
                const float by = expf(most - largest);
                scale(outputs[at], v->ne[0], by);
                sum *= by;
                most = largest;
            }
            sum += weights_of(scores, most);
        }
        add_values<Kind, N>(values, count, v->ne[0], held.scores, outputs);
    }

    // A group of tokens over the blocks and heads of one thread.
    template <typename Kind>
    void pass(const Held & held, const Share & share, int64_t first, int64_t last) const {
        const int64_t all = (last - first) * heads(), rows = (last - first) * shared();
        std::fill(held.outputs, held.outputs + all * v->ne[0], 0.0f);
        std::fill(held.most, held.most + all, -INFINITY);
        std::fill(held.sums, held.sums + all, 0.0f);
        float masked[TOGETHER * BLOCK];
        for (int64_t begin = share.block * BLOCK; begin < k->ne[1]; begin += share.blocks * BLOCK) {
            const int count = seen(begin, first, last, masked);
            for (int64_t head = share.head; count && head < k->ne[2]; head += share.heads) {
                const Block keys(k, head, begin, share.blocks * BLOCK), values(v, head, begin, share.blocks * BLOCK);
                for (int64_t row = 0; row < rows; row += TILE) {
                    switch (std::min<int64_t>(TILE, rows - row)) {
                        case 1: tile<Kind, 1>(held, keys, values, head, count, masked, first, row); break;
                        case 2: tile<Kind, 2>(held, keys, values, head, count, masked, first, row); break;
                        case 3: tile<Kind, 3>(held, keys, values, head, count, masked, first, row); break;
                        default: tile<Kind, TILE>(held, keys, values, head, count, masked, first, row);
                    }
                }
            }
        }
    }

    // Adds to what one thread holds of a row what another holds of it, of other blocks.
    void merge(const Held & held, const Held & other, int64_t row) const {
        if (other.most[row] == -INFINITY) {
            return;
        }
        const float most = std::max(held.most[row], other.most[row]);
        const float mine = expf(held.most[row] - most), theirs = expf(other.most[row] - most);
        held.most[row] = most;
        held.sums[row] = held.sums[row] * mine + other.sums[row] * theirs;
        float * outputs = held.outputs + row * v->ne[0];
        const float * more = other.outputs + row * v->ne[0];
        for (int64_t at = 0; at < v->ne[0]; at += LANES) {
            store(outputs + at, add_product(load(more + at), every(theirs), product(load(outputs + at), every(mine))));
        }
    }

    template <typename Kind>
    void compute(const ggml_compute_params * params) const {
        const int64_t together = tokens_together(params), width = v->ne[0];
        const Share share(params->ith, params->nth, k->ne[2]);
        const auto of = [&](int thread) { return Held(params->wdata, thread, together * heads(), width); };
        for (int64_t first = 0; first < q->ne[1]; first += together) {
            const int64_t last = std::min(first + together, q->ne[1]);
            pass<Kind>(of(params->ith), share, first, last);
            ggml_barrier(params->threadpool);
            for (int64_t row = params->ith; row < (last - first) * heads(); row += params->nth) {
                const int owner = row % heads() / shared() % share.heads; // the first thread that has this head
                const Held held = of(owner);
                for (int other = owner + share.heads; other < params->nth; other += share.heads) {
                    merge(held, of(other), row);
                }
                float * outputs = held.outputs + row * width;
                scale(outputs, width, held.sums[row] == 0.0f ? 0.0f : 1.0f / held.sums[row]);
                memcpy((char *) dst->data + (first * heads() + row) * dst->nb[1], outputs, width * sizeof(float));
            }
            if (last < q->ne[1]) {
                ggml_barrier(params->threadpool); // before anybody begins the next group
            }
        }
    }

    // So many that the work buffer holds what every thread holds of them.
    int64_t tokens_together(const ggml_compute_params * params) const {
        int64_t count = std::min<int64_t>(TOGETHER, q->ne[1]);
        while (count && params->nth * Held::size(count * heads(), v->ne[0]) * sizeof(float) > params->wsize) {
            --count;
        }
        return count;
    }

    bool known(const ggml_compute_params * params) const {
        float slopes, cap;
        memcpy(&slopes, dst->op_params + 1, sizeof(slopes));
        memcpy(&cap, dst->op_params + 2, sizeof(cap));
        const bool plain = !params->use_ref && !dst->src[4] && slopes == 0.0f && cap == 0.0f && k->type == v->type;
        const bool fits = q->type == GGML_TYPE_F32 && q->ne[3] == 1 && q->nb[0] == sizeof(float) &&
            k->nb[0] == ggml_type_size(k->type) && v->nb[0] == ggml_type_size(v->type) &&
            k->ne[2] == v->ne[2] && k->ne[0] % QK8_0 == 0 && v->ne[0] % QK8_0 == 0 &&
            (!mask || (mask->type == GGML_TYPE_F16 && mask->ne[2] == 1 && mask->ne[3] == 1));
        return plain && fits && tokens_together(params);
    }
};

} // namespace

extern "C" {

// Whether this build computes attention itself: see medmind/llama.py.
GGML_BACKEND_API bool medmind_attention(void) { return true; }

void medmind_compute_forward_flash_attn_ext(const struct ggml_compute_params * params, struct ggml_tensor * dst) {
    const Attention attention(dst);
    if (attention.known(params)) {
        switch (attention.k->type) {
            case GGML_TYPE_F16: return attention.compute<F16>(params);
            case GGML_TYPE_BF16: return attention.compute<BF16>(params);
            case GGML_TYPE_Q8_0: return attention.compute<Q8>(params);
            default: break;
        }
    }
    ggml_compute_forward_flash_attn_ext(params, dst);
}

} // extern "C"

#else

extern "C" {

GGML_BACKEND_API bool medmind_attention(void) { return false; }

void medmind_compute_forward_flash_attn_ext(const struct ggml_compute_params * params, struct ggml_tensor * dst) {
    ggml_compute_forward_flash_attn_ext(params, dst);
}

} // extern "C"

#endif
