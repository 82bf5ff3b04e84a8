/* test_chat.c: the chat texts, letter by letter, and which template is which family. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "chat.h"
#include "fault_alloc.h"

static void assert_prompt(fr_chat_style style, const char *system, const char *user,
                          const char *want)
{
    fr_buf out = {0};
    assert_int_equal(fr_chat_prompt(style, system, user, &out), FR_OK);
    assert_int_equal(fr_buf_put(&out, "", 1), FR_OK);
    assert_string_equal((char *)out.data, want);
    fr_buf_free(&out);
}

static void assert_probe(fr_chat_style style, const char *want)
{
    fr_buf out = {0};
    assert_int_equal(fr_chat_probe(style, "Q?", "A: ", &out), FR_OK);
    assert_int_equal(fr_buf_put(&out, "", 1), FR_OK);
    assert_string_equal((char *)out.data, want);
    fr_buf_free(&out);
}

static void test_prompts(void **state)
{
    (void)state;
    assert_prompt(FR_CHAT_NONE, NULL, "U", "U");
    assert_prompt(FR_CHAT_NONE, "S", "U", "S\n\nU");
    assert_prompt(FR_CHAT_CHATML, NULL, "U",
                  "<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n");
    assert_prompt(FR_CHAT_CHATML, "S", "U",
                  "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n"
                  "<|im_start|>assistant\n");
    assert_prompt(FR_CHAT_THINKING, "S", "U",
                  "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n"
                  "<|im_start|>assistant\n<think>\n");
    assert_prompt(FR_CHAT_LLAMA3, "S", "U",
                  "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>"
                  "<|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|>"
                  "<|start_header_id|>assistant<|end_header_id|>\n\n");
    assert_prompt(FR_CHAT_DEEPSEEK, "S", "U",
                  "<｜begin▁of▁sentence｜>S<｜User｜>U<｜Assistant｜><think>\n");
    assert_prompt(FR_CHAT_DEEPSEEK, NULL, "",
                  "<｜begin▁of▁sentence｜><｜User｜><｜Assistant｜><think>\n");
}

static void test_probes(void **state)
{
    (void)state;
    assert_probe(FR_CHAT_NONE, "\n\nQ?\nA: ");
    assert_probe(FR_CHAT_CHATML,
                 "<|im_end|>\n<|im_start|>user\nQ?<|im_end|>\n<|im_start|>assistant\nA: ");
    assert_probe(FR_CHAT_THINKING,
                 "<|im_end|>\n<|im_start|>user\nQ?<|im_end|>\n<|im_start|>assistant\nA: ");
    assert_probe(FR_CHAT_LLAMA3,
                 "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nQ?<|eot_id|>"
                 "<|start_header_id|>assistant<|end_header_id|>\n\nA: ");
    assert_probe(FR_CHAT_DEEPSEEK, "<｜end▁of▁sentence｜><｜User｜>Q?<｜Assistant｜>A: ");
}

/* Only what comes from outside is text; the template's own parts may hold special tokens. */
static void test_parts(void **state)
{
    (void)state;
    for (fr_chat_style style = FR_CHAT_NONE; style <= FR_CHAT_THINKING; style++) {
        fr_text_part parts[FR_CHAT_PARTS_MAX];
        int n = fr_chat_prompt_parts(style, "S", "U", parts), contents = 0;
        assert_true(n <= FR_CHAT_PARTS_MAX);
        for (int i = 0; i < n; i++) {
            int outside = parts[i].n == 1 && (*parts[i].text == 'S' || *parts[i].text == 'U');
            assert_int_equal(parts[i].parse_special, !outside);
            contents += outside;
        }
        assert_int_equal(contents, 2);
        assert_int_equal(fr_chat_probe_parts(style, "Q", "P", parts), 4);
        assert_int_equal(parts[1].parse_special + parts[3].parse_special, 0);
    }
}

static void assert_detects(const char *text, fr_chat_style want)
{
    fr_chat_style style = FR_CHAT_NONE;
    assert_int_equal(fr_chat_detect(text, text ? strlen(text) : 0, &style), FR_OK);
    assert_int_equal(style, want);
}

static void test_detect(void **state)
{
    (void)state;
    assert_detects(NULL, FR_CHAT_NONE);
    assert_detects("", FR_CHAT_NONE);
    assert_detects("{% for m in messages %}{{'<|im_start|>' + m['role']}}{% endfor %}",
                   FR_CHAT_CHATML);
    /* How the templates of QwQ and Qwen3 Thinking end, and those of Qwen3, which leave it to the model. */
    assert_detects("{{'<|im_start|>' + m.role}}{%- if add_generation_prompt %}\n"
                   "    {{- '<|im_start|>assistant\\n<think>\\n' }}\n{%- endif %}",
                   FR_CHAT_THINKING);
    assert_detects("{{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content }}"
                   "{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n"
                   "    {{- '<think>\\n\\n</think>\\n\\n' }}\n{%- endif %}",
                   FR_CHAT_CHATML);
    assert_detects("{{ '<|start_header_id|>' + message['role'] }}", FR_CHAT_LLAMA3);
    assert_detects("{{'<｜User｜>' + message['content']}}{{'<｜Assistant｜><think>\\n'}}",
                   FR_CHAT_DEEPSEEK);
    static const char *const unknown[] = {"[INST]", "{{'<|im_start|>'}}{{'<|im_sep|>'}}",
                                          "<|user|>"};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        fr_chat_style style = FR_CHAT_LLAMA3;
        assert_int_equal(fr_chat_detect(unknown[i], strlen(unknown[i]), &style), FR_EUNSUPPORTED);
        assert_int_equal(style, FR_CHAT_LLAMA3); /* untouched */
    }
}

static void test_no_memory(void **state)
{
    (void)state;
    fr_buf out = {0};
    fr_fault_alloc_arm(0);
    assert_int_equal(fr_chat_prompt(FR_CHAT_CHATML, NULL, "U", &out), FR_ENOMEM);
    assert_true(fr_fault_alloc_disarm());
    assert_int_equal(out.len, 0);
    fr_buf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prompts),   cmocka_unit_test(test_probes),
        cmocka_unit_test(test_parts),     cmocka_unit_test(test_detect),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
