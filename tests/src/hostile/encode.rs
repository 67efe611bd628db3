//! Encodes modules that are too large for the text format (WebAssembly core specification, section 5), and sections
//! after a component.

/// Component section: a core module.
const COMPONENT_MODULE: u8 = 1;
/// Component section: a nested component.
const COMPONENT_COMPONENT: u8 = 4;
/// Section of both: custom.
const CUSTOM: u8 = 0;
/// Sections of a module.
const TYPES: u8 = 1;
const FUNCTIONS: u8 = 3;
const CODE: u8 = 10;

/// `i32`
const I32: u8 = 0x7f;
/// `end`
const END: u8 = 0x0b;

/// The component followed by a core module that nothing instantiates, but that is checked and compiled.
pub fn with_module(mut component: Vec<u8>, module: &[u8]) -> Vec<u8> {
    section(&mut component, COMPONENT_MODULE, module);
    component
}

/// The component followed by empty components, nested this many levels deep.
pub fn with_components(mut component: Vec<u8>, levels: usize) -> Vec<u8> {
    const EMPTY: [u8; 8] = *b"\0asm\x0d\0\x01\0";
    let mut nested = EMPTY.to_vec();
    for _ in 1..levels {
        let mut outer = EMPTY.to_vec();
        section(&mut outer, COMPONENT_COMPONENT, &nested);
        nested = outer;
    }
    section(&mut component, COMPONENT_COMPONENT, &nested);
    component
}

/// The component followed by a custom section: the digest differs, the behaviour does not.
pub fn with_note(mut component: Vec<u8>, note: &[u8]) -> Vec<u8> {
    let mut content = Vec::with_capacity(note.len() + 8);
    unsigned(&mut content, 4);
    content.extend(b"note");
    content.extend(note);
    section(&mut component, CUSTOM, &content);
    component
}

/// A module with this many empty functions.
pub fn functions(count: u32) -> Vec<u8> {
    module(count, &[0, END])
}

/// A module with this many types, all without parameters and results.
pub fn types(count: u32) -> Vec<u8> {
    let mut declared = Vec::new();
    unsigned(&mut declared, count);
    for _ in 0..count {
        declared.extend([0x60, 0, 0]);
    }
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    section(&mut module, TYPES, &declared);
    module
}

/// A module with one function of this many instructions.
pub fn long_function(instructions: u32) -> Vec<u8> {
    module(1, &arithmetic(instructions))
}

/// A module with many functions of many instructions that are expensive to compile.
pub fn long_functions(count: u32, instructions: u32) -> Vec<u8> {
    module(count, &arithmetic(instructions))
}

/// A module with one function with this many locals.
pub fn locals(count: u32) -> Vec<u8> {
    let mut body = Vec::new();
    // One group of locals, so that a few bytes declare a large number.
    unsigned(&mut body, 1);
    unsigned(&mut body, count);
    body.extend([I32, END]);
    module(1, &body)
}

/// A function body without result: one local that is repeatedly multiplied and added to, so that nothing can be
/// optimised away.
fn arithmetic(instructions: u32) -> Vec<u8> {
    // (local.set 0 (i32.add (i32.mul (local.get 0) (local.get 0)) (i32.const 1))): six instructions, eleven bytes
    const STEP: [u8; 11] = [0x20, 0, 0x20, 0, 0x6c, 0x41, 1, 0x6a, 0x21, 0, 0x01];
    let mut body = vec![1, 1, I32];
    for _ in 0..instructions.div_ceil(7) {
        body.extend(STEP);
    }
    body.push(END);
    body
}

/// A module with `count` copies of a function without parameters and results.
fn module(count: u32, body: &[u8]) -> Vec<u8> {
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    section(&mut module, TYPES, &[1, 0x60, 0, 0]);
    let mut declared = Vec::new();
    unsigned(&mut declared, count);
    declared.resize(declared.len() + count as usize, 0);
    section(&mut module, FUNCTIONS, &declared);
    let mut one = Vec::with_capacity(body.len() + 5);
    unsigned(&mut one, u32::try_from(body.len()).expect("less than 4 GiB"));
    one.extend(body);
    let mut code = Vec::with_capacity(one.len() * count as usize + 5);
    unsigned(&mut code, count);
    for _ in 0..count {
        code.extend(&one);
    }
    section(&mut module, CODE, &code);
    module
}

fn section(into: &mut Vec<u8>, id: u8, content: &[u8]) {
    into.push(id);
    unsigned(into, u32::try_from(content.len()).expect("less than 4 GiB"));
    into.extend(content);
}

/// Encodes a number in LEB128.
fn unsigned(into: &mut Vec<u8>, mut value: u32) {
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            into.push(low);
            return;
        }
        into.push(low | 0x80);
    }
}
